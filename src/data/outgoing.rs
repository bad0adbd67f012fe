//! A request on its way to a replica, to be sent as often as need be.
//!
//! Its headers go with the first attempt as they are: hyper uses the memory of their map for the headers of the answer.
//! What stays here, for another attempt that hardly ever follows, is their text: a copy of the map would cost two
//! allocations and a count for each value.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};

use super::upload::{Upload, UploadBody};

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) target: Uri,
    /// Until the first attempt.
    pub(crate) headers: HeaderMap,
    pub(crate) upload: Option<Upload>,
    /// From an attempt on that may be followed by another.
    spare: Option<Spare>,
}

impl Outgoing {
    pub(crate) fn new(method: Method, target: Uri, headers: HeaderMap, upload: Option<Upload>) -> Self {
        Self { method, target, headers, upload, spare: None }
    }

    /// One request of it. Only with `keep` there can be another, unless this one comes back.
    pub(crate) fn request(&mut self, keep: bool) -> Request<UploadBody> {
        let headers = self.spare.take().map_or_else(|| std::mem::take(&mut self.headers), |spare| spare.headers());
        if keep {
            self.spare = Some(Spare::of(&headers));
        }
        let body = self.upload.as_ref().map(|upload| upload.body(keep));
        let mut request = Request::new(body.unwrap_or_else(UploadBody::empty));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = headers;
        request
    }

    /// A request of it that was not sent.
    pub(crate) fn take_back(&mut self, request: Request<UploadBody>) {
        self.headers = request.into_parts().0.headers;
        self.spare = None;
    }

    /// Whether its body, if it has one, can be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.upload.as_ref().is_none_or(Upload::is_replayable)
    }
}

/// Most have less than that in all; for others the text grows.
const TEXT_USUAL: usize = 1 << 10;

/// Headers as text.
#[derive(Debug)]
struct Spare(Vec<u8>);

impl Spare {
    /// Of these headers.
    fn of(headers: &HeaderMap) -> Self {
        let mut text = Vec::with_capacity(TEXT_USUAL);
        for (name, value) in headers {
            text.extend_from_slice(name.as_str().as_bytes());
            // Neither a name nor a value can hold these two.
            text.push(b'\0');
            text.extend_from_slice(value.as_bytes());
            text.push(b'\n');
        }
        Self(text)
    }

    /// The same headers in the same order.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in self.0.split(|&byte| byte == b'\n') {
            let mut parts = line.splitn(2, |&byte| byte == b'\0');
            let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
            let value = parts.next().and_then(|value| HeaderValue::from_bytes(value).ok());
            if let (Some(name), Some(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let lines: [(&str, &[u8]); 6] = [
            ("host", b"models.example.com"),
            ("x-empty", b""),
            ("cookie", b"a=1; b=2"),
            ("x-odd", b"tab\tquote\"colon:\xe4\xff"),
            ("cookie", b"c=3"),
            ("content-length", b"47"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_second_request_has_the_headers_of_the_first_where_they_were_kept_or_came_back() {
        let mut outgoing = Outgoing::new(Method::POST, Uri::from_static("/score"), headers(), None);
        for _ in 0..3 {
            assert_eq!(outgoing.request(true).headers(), &headers());
        }
        let last = outgoing.request(false);
        assert_eq!(last.headers(), &headers());
        outgoing.take_back(last);
        assert_eq!(outgoing.request(false).headers(), &headers());
        assert_eq!(Spare::of(&HeaderMap::new()).headers(), HeaderMap::new());
    }
}
