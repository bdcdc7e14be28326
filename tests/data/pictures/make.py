#!/usr/bin/env python3
"""Makes the pictures that the tests of the resize modes compare with: by Pillow, from sources that it draws.

python3 -m pip install pillow==11.3.0 && python3 tests/data/pictures/make.py

Up to that version at least Pillow scales across first and then down; 13.0 takes the other order for some shapes, which changes
single pixels beside hard edges.

<mode>-<source>-<width>x<height>-<RGB or L>.png is <source>.png as a model of that size sees it. `none` has no file:
it is the source itself.
"""

import math
import pathlib

from PIL import Image

SOURCES = {"wide": (97, 61), "upright": (45, 71)}
TARGETS = [(32, 32), (27, 41), (110, 90)]


def drawn(width, height):
    """Smooth shades, a slanted fine texture, and hard edges in brightness and in colour, as in a photograph."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            u, v = x / width, y / height
            texture = 9 * math.sin(x * 1.9 + y * 0.7)
            edge = 90 if abs(u - 0.3) < 0.1 and abs(v - 0.6) < 0.2 else 0
            tint = (0, 0, 0)
            if math.hypot(u - 0.7, v - 0.3) < 0.08:
                tint = (120, -70, -70)
            if math.hypot(u - 0.8, v - 0.75) < 0.08:
                tint = (-70, -70, 120)
            shades = (110 + 60 * math.sin(6 * u + 4 * v + phase) for phase in (0, 1.1, 2.3))
            pixel = (min(max(int(s + texture + edge + t), 0), 255) for s, t in zip(shades, tint))
            image.putpixel((x, y), tuple(pixel))
    return image


def squash(image, size):
    return image.resize(size, Image.LANCZOS)


def fit_shortest(image, size):
    """The largest part of that shape in the middle, to fractions of a pixel."""
    scale = max(size[0] / image.width, size[1] / image.height)
    width, height = min(size[0] / scale, image.width), min(size[1] / scale, image.height)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize(size, Image.LANCZOS, box=(left, top, left + width, top + height))


def fit_longest(image, size):
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (int(image.width * scale + 0.5), int(image.height * scale + 0.5))
    picture = Image.new("RGB", size)
    picture.paste(image.resize(inner, Image.LANCZOS), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return picture


directory = pathlib.Path(__file__).parent
for name, source_size in SOURCES.items():
    source = drawn(*source_size)
    source.save(directory / f"{name}.png", optimize=True)
    for mode in (squash, fit_shortest, fit_longest):
        for size in TARGETS:
            picture = mode(source, size)
            for colours in ("RGB", "L"):
                file = f"{mode.__name__.replace('_', '-')}-{name}-{size[0]}x{size[1]}-{colours}.png"
                picture.convert(colours).save(directory / file, optimize=True)
