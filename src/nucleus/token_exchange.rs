//! The port of the token exchange service, which gives out the AWS credentials of the device.

use serde_json::Value;

use super::connection::{Nucleus, get_configuration};
use super::error::NucleusError;

const TOKEN_EXCHANGE_SERVICE: &str = "aws.greengrass.TokenExchangeService";
/// The keys with the port, in this order. The classic nucleus writes the port in use to `activePort`, and its `port` is the
/// configured one (0: any). Greengrass Lite has only `port`, the one in use.
const PORT_KEYS: [&str; 2] = ["activePort", "port"];

impl Nucleus {
    /// The port on which the token exchange service listens now. It changes with each start of the service.
    ///
    /// # Errors
    /// The errors of the connection and of the request; [`NucleusError::NotFound`]: the service was never started.
    pub async fn token_exchange_port(&self) -> Result<u16, NucleusError> {
        let client = self.connect().await?;
        for key in PORT_KEYS {
            match get_configuration(&client, Some(TOKEN_EXCHANGE_SERVICE), &[key]).await {
                Ok(value) => {
                    if let Some(port) = port_in(&value[key]) {
                        return Ok(port);
                    }
                }
                Err(NucleusError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NucleusError::NotFound {
            operation: "GetConfiguration",
        })
    }
}

/// The port in a value, which is a number on the classic nucleus and a text on Lite.
pub(super) fn port_in(value: &Value) -> Option<u16> {
    let port = match value {
        Value::Number(number) => u16::try_from(number.as_f64()? as i64).ok()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (port > 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_a_number_or_a_text_and_not_zero() {
        for (value, port) in [
            (json!(40123), Some(40123)),
            (json!(40123.0), Some(40123)),
            (json!("65535"), Some(65535)),
            (json!(" 8080 "), Some(8080)),
            (json!(0), None),
            (json!("0"), None),
            (json!(65536), None),
            (json!(-1), None),
            (json!("none"), None),
            (Value::Null, None),
        ] {
            assert_eq!(port_in(&value), port, "{value}");
        }
    }
}
