//! The component's state as the nucleus shows it.

use greengrass_ipc::LifecycleState;

use super::connection::Nucleus;
use super::error::NucleusError;

impl Nucleus {
    /// Reports the state ERRORED (`UpdateState`). The classic nucleus then restarts the component, and after the third time
    /// within an hour it is BROKEN: only for what an operator must mend. Greengrass Lite 2.6 accepts the state without any
    /// effect.
    ///
    /// # Errors
    /// The errors of the connection and of the request.
    pub async fn report_errored(&self) -> Result<(), NucleusError> {
        let client = self.connect().await?;
        let reported = client.update_state(LifecycleState::Errored).await;
        reported.map_err(|error| NucleusError::of_operation("UpdateState", &error))
    }
}
