//! Tasks, all of one type for each kind of result: what tokio makes of a task is then in the program once, and is translated
//! once where the VM is emulated. That is much of what a first command after a resume costs.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinHandle;

pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    tokio::spawn(future)
}
