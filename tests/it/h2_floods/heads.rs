//! Heads that do not end, or that are small on the wire and large once unpacked.

use std::time::Duration;

use super::{
    Attacker, CONTINUATION, DATA, END_BOTH, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, ask, besiege, is_at_rest,
    setting, start, start_with,
};
use crate::downgrade::{HEADERS, REQUEST, block, frame};

/// The error code of HTTP/2 for what the protocol forbids.
const PROTOCOL_ERROR: u32 = 1;
/// A reference to the field that was put into the table last.
const LATEST: u8 = 0x80 | 62;

/// A field that goes into the table, with a value of so many bytes (128 to 16,000).
fn remember(bytes: usize) -> Vec<u8> {
    let rest = bytes - 127;
    let length = [127, u8::try_from(rest % 128).unwrap() | 0x80, u8::try_from(rest / 128).unwrap()];
    [&[0x40, 6], &b"x-bomb"[..], &length, &vec![b'b'; bytes]].concat()
}

/// A request whose head has this field so many times, one byte each.
fn bomb(times: usize) -> Vec<u8> {
    [block(REQUEST), remember(3900), vec![LATEST; times]].concat()
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let (replica, router) = start().await;
    let more = frame(CONTINUATION, 0, 1, &block(&[("x-more", "y")]).repeat(1000));
    let endless = [frame(HEADERS, 0, 1, &block(REQUEST)), more.repeat(100)].concat();
    besiege(&router, async || {
        let said = Attacker::connect(&router, &[]).await.flood(endless.clone()).await;
        assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{said:?}");
    })
    .await;
    assert!(replica.seen().iter().all(|seen| seen.header("x-more").is_none()));
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_never_ends_and_is_empty_ends_the_connection() {
    let (_replica, router) = start().await;
    let more = frame(CONTINUATION, 0, 1, &[]).repeat(10);
    let endless = [frame(HEADERS, 0, 1, &block(REQUEST)), more].concat();
    assert_eq!(Attacker::connect(&router, &[]).await.send_and_end(&endless).await, Some(ENHANCE_YOUR_CALM));
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_stops_in_the_middle_ends_with_the_idle_time() {
    let (_replica, router) = start_with(|config| config.limits.idle_timeout = Duration::from_millis(500)).await;
    let attacker = Attacker::connect(&router, &[]).await;
    attacker.send_and_end(&frame(HEADERS, 0, 1, &block(REQUEST))).await;
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_unpacks_to_many_times_its_size_ends_the_connection() {
    let (replica, router) = start().await;
    besiege(&router, async || {
        // 16 KB that would be 46 MB.
        let bytes = frame(HEADERS, END_BOTH, 1, &bomb(12_000));
        assert_eq!(Attacker::connect(&router, &[]).await.send_and_end(&bytes).await, Some(ENHANCE_YOUR_CALM));
    })
    .await;
    assert!(replica.seen().iter().all(|seen| seen.header("x-bomb").is_none()));
    router.drain().await;
}

#[tokio::test]
async fn a_head_that_unpacks_to_more_than_the_limit_is_refused_and_the_connection_goes_on() {
    let (replica, router) = start().await;
    let mut client = Attacker::connect(&router, &[]).await;
    client.send(&frame(HEADERS, END_BOTH, 1, &bomb(30))).await;
    let refused = client.wait_for(HEADERS).await;
    // Its status is spelt out: it is not one of those that the static table has.
    assert!(refused.stream == 1 && refused.payload.windows(3).any(|part| part == b"431" || part == huffman_431()));
    assert!(replica.seen().is_empty());
    client.send(&ask(3, END_BOTH)).await;
    assert_eq!(client.wait_for(DATA).await.payload, b"fine");
    drop(client);
    is_at_rest(&router).await;
    router.drain().await;
}

/// `431` in the code of HPACK: 011010, 011001, 00001, filled up with ones.
fn huffman_431() -> [u8; 3] {
    [0b0110_1001, 0b1001_0000, 0b1111_1111]
}

#[tokio::test]
async fn a_table_larger_than_the_router_offers_is_refused() {
    let (_replica, router) = start().await;
    // A resize to 8192 in the head, where 4096 is what there is.
    let bytes = frame(HEADERS, END_BOTH, 1, &[vec![0x3f, 0xe1, 0x3f], block(REQUEST)].concat());
    assert_eq!(Attacker::connect(&router, &[]).await.send_and_end(&bytes).await, Some(PROTOCOL_ERROR));
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_offers_a_huge_table_makes_the_router_keep_no_more() {
    let (_replica, router) = start().await;
    // SETTINGS_HEADER_TABLE_SIZE of 4 GiB, and request after request with an id of its own in the answer.
    let mut client = Attacker::connect(&router, &setting(1, u32::MAX)).await;
    for number in 0..400 {
        client.send(&ask(2 * number + 1, END_BOTH)).await;
        let head = client.wait_for(HEADERS).await;
        let is_resize = |byte: &u8| byte & 0xe0 == 0x20;
        // Without saying so at the beginning of a head, the router may use no more than 4096 bytes.
        assert!(!head.payload.first().is_some_and(is_resize), "head {number} changes the size of the table");
        assert_ne!(client.wait_for(DATA).await.flags & END_STREAM, 0);
    }
    drop(client);
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_table_that_is_resized_over_and_over_costs_nobody_else() {
    let (_replica, router) = start().await;
    besiege(&router, async || {
        let mut client = Attacker::connect(&router, &[]).await;
        for stream in [1, 3, 5] {
            // To nothing and back to 4096, thousands of times within one head.
            let resizes = [0x20, 0x3f, 0xe1, 0x1f].repeat(3000);
            client.send(&frame(HEADERS, END_BOTH, stream, &[resizes, block(REQUEST)].concat())).await;
            assert_ne!(client.wait_for(DATA).await.flags & END_STREAM, 0);
        }
    })
    .await;
    let mut client = Attacker::connect(&router, &[]).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(REQUEST))).await;
    drop(client);
    is_at_rest(&router).await;
    router.drain().await;
}
