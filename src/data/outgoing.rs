//! A request on its way to a replica, to be sent as often as need be.
//!
//! Its head goes along with each attempt and comes back when that fails. So does the map that the client's headers were
//! in: its memory is that of the answer's.

use http::HeaderMap;

use super::upload::{Upload, UploadBody};
use super::upstream::RequestHead;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: RequestHead,
    /// An empty map, for the headers of the answer.
    pub(crate) room: HeaderMap,
    pub(crate) upload: Option<Upload>,
}

impl Outgoing {
    /// Of this head; what is in the map was written to it.
    pub(crate) fn new(head: RequestHead, mut room: HeaderMap, upload: Option<Upload>) -> Self {
        room.clear();
        Self { head, room, upload }
    }

    /// The head for an attempt, and the map.
    pub(crate) fn take_head(&mut self) -> (RequestHead, HeaderMap) {
        (std::mem::take(&mut self.head), std::mem::take(&mut self.room))
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
