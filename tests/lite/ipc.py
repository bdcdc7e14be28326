#!/usr/bin/env python3
"""Makes one call to the Greengrass Lite nucleus as the component whose systemd unit this process runs in.

Usage: ipc.py SOCKET COMPONENT OPERATION JSON [EVENTS]

SOCKET is the nucleus's socket, OPERATION the name after "aws.greengrass#" (for example UpdateConfiguration), JSON its
request. Prints the JSON of the answer, and then of so many EVENTS of a subscription (default: 0). Ends with 1 if the
nucleus refuses the connection or the operation, or if an event does not come in time.

Messages are AWS event-stream frames. Greengrass Lite identifies a process that names its component instead of giving
a token by the process's unit, which it does for its own recipe-runner too.
"""

import json
import socket
import struct
import sys
import zlib

INT32, STRING = 4, 7
APPLICATION_MESSAGE, CONNECT = 0, 4
TIMEOUT_SECONDS = 20


def encode(headers, payload):
    encoded = b""
    for name, value in headers.items():
        encoded += bytes([len(name)]) + name.encode()
        if isinstance(value, int):
            encoded += struct.pack(">Bi", INT32, value)
        else:
            encoded += struct.pack(">BH", STRING, len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(encoded) + len(body), len(encoded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + encoded + body
    return message + struct.pack(">I", zlib.crc32(message))


def receive(connection, length):
    received = b""
    while len(received) < length:
        part = connection.recv(length - len(received))
        if not part:
            sys.exit("the nucleus closed the connection: it does not take this process for the component")
        received += part
    return received


def read_message(connection):
    """The message type and the payload of the next message."""
    total, headers_length, _ = struct.unpack(">III", receive(connection, 12))
    rest = receive(connection, total - 12)
    headers, at = rest[:headers_length], 0
    message_type = None
    while at < headers_length:
        name = headers[at + 1 : at + 1 + headers[at]].decode()
        at += 1 + headers[at]
        kind = headers[at]
        if kind == INT32:
            value, at = struct.unpack_from(">i", headers, at + 1)[0], at + 5
        elif kind == STRING:
            length = struct.unpack_from(">H", headers, at + 1)[0]
            value, at = headers[at + 3 : at + 3 + length].decode(), at + 3 + length
        else:
            sys.exit(f"header {name} has the unexpected type {kind}")
        if name == ":message-type":
            message_type = value
    return message_type, rest[headers_length:-4].decode()


def main():
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    path, component, operation, request = sys.argv[1:5]
    events = int(sys.argv[5]) if len(sys.argv) == 6 else 0
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT_SECONDS)
    connection.connect(path)
    common = {":message-flags": 0, ":content-type": "application/json"}
    connect = {":message-type": CONNECT, ":stream-id": 0, ":version": "0.1.0"}
    connection.sendall(encode(common | connect, {"componentName": component}))
    read_message(connection)
    call = {
        ":message-type": APPLICATION_MESSAGE,
        ":stream-id": 1,
        "operation": f"aws.greengrass#{operation}",
        "service-model-type": f"aws.greengrass#{operation}Request",
    }
    connection.sendall(encode(common | call, json.loads(request)))
    for _ in range(1 + events):
        message_type, text = read_message(connection)
        print(text, flush=True)
        if message_type != APPLICATION_MESSAGE:
            sys.exit(1)


main()
