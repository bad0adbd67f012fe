//! A request on its way to a replica, to be sent as often as need be.
//!
//! Its head goes along with each attempt and comes back when that fails: nothing is copied. Once there is an answer, the
//! memory of its headers is that of the answer's.

use http::{HeaderMap, Method, Uri};

use super::upload::{Upload, UploadBody};
use super::upstream::RequestHead;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: RequestHead,
    pub(crate) upload: Option<Upload>,
}

impl Outgoing {
    pub(crate) fn new(method: Method, target: Uri, headers: HeaderMap, upload: Option<Upload>) -> Self {
        Self { head: RequestHead { method, target, headers }, upload }
    }

    /// The head for an attempt.
    pub(crate) fn take_head(&mut self) -> RequestHead {
        std::mem::take(&mut self.head)
    }

    /// The body for an attempt. Only with `keep` there can be another, once something of it was sent.
    pub(crate) fn body(&self, keep: bool) -> UploadBody {
        self.upload.as_ref().map_or_else(UploadBody::empty, |upload| upload.body(keep))
    }

    /// Whether its body, if it has one, can be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.upload.as_ref().is_none_or(Upload::is_replayable)
    }
}
