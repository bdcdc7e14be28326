//! Entry points of the fuzz targets in `tests/fuzz`, which are another crate, to what is private elsewhere. Nothing in the program
//! calls them, so the linker leaves them out.

pub use crate::aws::fuzzing as aws;
pub use crate::cache::fuzzing as cache;
pub use crate::capture::fuzzing as capture;
pub use crate::cli::fuzzing as cli;
pub use crate::http::fuzzing as http;
pub use crate::local_topics::fuzzing as local_topics;
pub use crate::model::fuzzing as model;
pub use crate::nucleus::fuzzing as nucleus;
pub use crate::studio::fuzzing as studio;
pub use crate::uplink::fuzzing as uplink;
pub use crate::util::fuzzing as util;
