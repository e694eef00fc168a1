//! What one direction keeps, owes and holds while its neighbours are slow.

use super::*;
use proptest::prelude::*;

const KIB: usize = 1024;
const MADE: usize = 1024 * KIB;

/// Decides by a closure over the undecided bytes; counts how often it is asked.
struct Script<F> {
    step: F,
    asked: usize,
    held: usize,
}

impl<F: FnMut(&[u8]) -> Step> Decider for Script<F> {
    fn ask(&mut self, bytes: &[u8]) -> Step {
        self.asked += 1;
        (self.step)(bytes)
    }

    fn held(&self) -> usize {
        self.held
    }
}

fn script<F: FnMut(&[u8]) -> Step>(step: F) -> Script<F> {
    Script { step, asked: 0, held: 0 }
}

fn poll<S: AsyncRead + Unpin, D: AsyncWrite + Unpin>(
    direction: &mut Direction,
    sides: (&mut S, &mut D),
    budget: &Arc<HoldBudget>,
    decider: &mut impl Decider,
) -> Progress {
    let mut cx = Context::from_waker(Waker::noop());
    let room = Room { scratch: &mut vec![0; 256 * KIB], budget, stranger: false };
    direction.poll(&mut cx, sides, room, decider)
}

fn write_all(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(writer).poll_write(&mut cx, bytes) {
        Poll::Ready(Ok(length)) if length == bytes.len() => {}
        other => panic!("{other:?}"),
    }
}

fn read_all(reader: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let (mut piece, mut all) = (vec![0; 64 * KIB], Vec::new());
    loop {
        let mut buffer = ReadBuf::new(&mut piece);
        match Pin::new(&mut *reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => all.extend_from_slice(buffer.filled()),
            _ => return all,
        }
    }
}

fn pass(pass: usize) -> Step {
    Step { pass, then: Then::Wait { need: 1 } }
}

fn wait(need: usize) -> Step {
    Step { pass: 0, then: Then::Wait { need } }
}

fn replace(consumed: usize, made: Vec<u8>) -> Step {
    Step { pass: 0, then: Then::Replace { consumed, made } }
}

#[test]
fn what_was_made_for_a_client_that_does_not_read_is_counted_until_it_does() {
    let (mut node, mut source) = tokio::io::duplex(KIB);
    let (mut destination, mut client) = tokio::io::duplex(KIB);
    // There is less room than that, but not much.
    let budget = HoldBudget::new(MADE - MADE / 16);
    let mut direction = Direction::default();
    let mut made = script(|bytes| replace(bytes.len(), vec![0; MADE]));
    write_all(&mut node, b"frame");
    let mut taken = 0;
    while taken + KIB < MADE {
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut made);
        assert!(matches!(progress, Progress::Blocked), "{progress:?}");
        assert_eq!(budget.held(), MADE - hold::FREE, "it is one piece of memory until the last byte is taken");
        taken += read_all(&mut client).len();
    }
    let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut made);
    assert!(matches!(progress, Progress::Blocked), "{progress:?}");
    assert!(direction.is_flushed());
    assert_eq!(budget.held(), 0);
}

#[test]
fn a_reader_that_does_not_read_is_owed_one_read_and_one_made_frame() {
    // Requests of 10 bytes, each of which becomes 100: as many as a client likes.
    let mut source = &vec![7; 64 * MADE][..];
    let (mut destination, mut node) = tokio::io::duplex(KIB);
    let budget = HoldBudget::new(MADE);
    let mut direction = Direction::default();
    let mut decider = script(|bytes| if bytes.len() < 10 { wait(10) } else { replace(10, vec![8; 100]) });
    for round in 1..50 {
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::Blocked), "{progress:?}");
        assert!(decider.asked <= 11 * round, "{} are decided in {round} rounds", decider.asked);
        assert!(direction.kept.capacity() + direction.owed.len() <= READ + 100);
        assert!(budget.held() <= 100, "a read is free");
        assert_eq!(read_all(&mut node).len(), KIB);
    }
}

#[test]
fn what_passes_to_a_client_that_does_not_read_is_one_ordinary_read_where_room_is_short() {
    for (limit, most) in [(4 * MADE, 256 * KIB), (100 * KIB, READ)] {
        let mut source = &vec![0; MADE][..];
        let (mut destination, _client) = tokio::io::duplex(20 * KIB);
        let budget = HoldBudget::new(limit);
        let mut direction = Direction::default();
        let mut decider = script(|bytes| pass(bytes.len()));
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::Blocked), "{progress:?}");
        let owed = direction.owed.len();
        assert!(owed > most / 2 && owed <= most, "{owed} of {most}");
        assert_eq!(budget.held(), owed.saturating_sub(hold::FREE));
        drop(direction);
        assert_eq!(budget.held(), 0);
    }
}

#[test]
fn a_claim_reserves_nothing_and_room_is_taken_as_bytes_arrive() {
    let (mut client, mut source) = tokio::io::duplex(MADE);
    let mut destination = tokio::io::sink();
    let budget = HoldBudget::new(MADE);
    let mut direction = Direction::default();
    let mut decider = script(|bytes| if bytes.len() < MADE { wait(MADE) } else { replace(MADE, Vec::new()) });
    let mut arrived = 0;
    for piece in [9, 10_000, 10_000, 100_000, 5] {
        write_all(&mut client, &vec![1; piece]);
        arrived += piece;
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::Blocked), "{progress:?}");
        assert_eq!(direction.kept.len(), arrived);
        assert_eq!(budget.held(), arrived.saturating_sub(hold::FREE));
    }
    write_all(&mut client, &vec![1; MADE - arrived]);
    while direction.holds() {
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::Blocked | Progress::Yield), "{progress:?}");
    }
    assert_eq!((budget.held(), decider.asked), (0, 2));
}

#[test]
fn whoever_gets_no_room_reads_nothing_until_it_is_given() {
    let budget = HoldBudget::new(64 * KIB);
    let mut holder = None;
    assert!(budget.poll_grow(&mut Context::from_waker(Waker::noop()), &mut holder, 64 * KIB, false).is_ready());
    let (mut client, mut source) = tokio::io::duplex(MADE);
    let mut destination = tokio::io::sink();
    let mut direction = Direction::default();
    let mut decider =
        script(|bytes| if bytes.len() < 50 * KIB { wait(50 * KIB) } else { replace(50 * KIB, Vec::new()) });
    write_all(&mut client, &[1; 50 * KIB]);
    for _ in 0..3 {
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::NoRoom), "{progress:?}");
        assert_eq!(direction.kept.len(), hold::FREE + TASTE);
        assert_eq!(budget.waiting(), 1);
    }
    drop(holder);
    let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
    assert!(matches!(progress, Progress::Blocked), "{progress:?}");
    assert_eq!((direction.holds(), budget.held(), budget.waiting()), (false, 0, 0));
}

#[test]
fn whoever_has_nothing_to_read_waits_for_no_room() {
    let budget = HoldBudget::new(64 * KIB);
    let mut holder = None;
    let (mut client, mut source) = tokio::io::duplex(MADE);
    let mut destination = tokio::io::sink();
    let mut direction = Direction::default();
    let mut decider = script(|_| wait(MADE));
    write_all(&mut client, &[1; 20 * KIB]);
    for _ in 0..2 {
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::Blocked), "{progress:?}");
        assert!(budget.poll_grow(&mut Context::from_waker(Waker::noop()), &mut holder, 60 * KIB, false).is_ready());
    }
    assert_eq!(budget.waiting(), 0);
    write_all(&mut client, &[1]);
    let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
    assert!(matches!(progress, Progress::NoRoom), "{progress:?}");
}

#[test]
fn what_is_held_elsewhere_is_counted_and_stops_more_where_there_is_no_room() {
    let budget = HoldBudget::new(180 * KIB);
    let mut source = &vec![0; MADE][..];
    let mut destination = tokio::io::sink();
    let mut direction = Direction::default();
    // Each byte is as good as 100 of memory.
    let mut decider = script(|_| replace(1, Vec::new()));
    let mut held = 0;
    loop {
        decider.held = held;
        held += 100 * KIB;
        match poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider) {
            Progress::NoRoom => break,
            progress => assert!(matches!(progress, Progress::Yield), "{progress:?}"),
        }
        assert!(held < MADE);
    }
    let there = 200 * KIB + direction.kept.len();
    assert_eq!(budget.held(), there - hold::FREE, "what is there already is counted beyond the limit");
}

#[test]
fn a_conversation_that_wants_another_turn_gets_it_with_the_same_bytes_be_they_none() {
    let mut source = &b"abc"[..];
    let mut destination = Vec::new();
    let budget = HoldBudget::new(MADE);
    let mut direction = Direction::default();
    let mut turn = 0;
    let mut decider = script(|bytes| {
        turn += 1;
        let all = bytes.len();
        match turn {
            1 => Step { pass: 1, then: Then::Yield },
            2 => Step { pass: 2, then: Then::Yield },
            3 => {
                assert_eq!(all, 0);
                Step { pass: 0, then: Then::Replace { consumed: 0, made: b"de".to_vec() } }
            }
            _ => pass(all),
        }
    });
    for _ in 0..2 {
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
        assert!(matches!(progress, Progress::Yield), "{progress:?}");
    }
    let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
    assert!(matches!(progress, Progress::Finished), "{progress:?}");
    assert_eq!(destination, b"abcde");
}

/// Frames of a length byte and a body: the first byte of the body says what becomes of it.
fn decide(bytes: &[u8], yields: bool) -> Step {
    let Some(&length) = bytes.first() else { return wait(1) };
    let whole = 1 + usize::from(length);
    match bytes.get(1).map(|byte| byte % 4) {
        _ if bytes.len() < whole => wait(whole),
        Some(0) => replace(whole, [&bytes[..whole], &bytes[..whole]].concat()),
        Some(1) => replace(whole, Vec::new()),
        _ if yields => Step { pass: whole, then: Then::Yield },
        _ => Step { pass: whole, then: Then::Replace { consumed: 0, made: vec![0] } },
    }
}

proptest! {
    /// However slow either side is, what comes out is what was decided, in order.
    #[test]
    fn bytes_come_out_in_order_for_any_pace(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..40),
        pieces in proptest::collection::vec(1_usize..300, 1..10),
        window in 1_usize..200,
    ) {
        let mut expected = Vec::new();
        let mut input = Vec::new();
        for (body, position) in bodies.iter().zip(0_u32..) {
            let frame = [&[u8::try_from(body.len()).unwrap()], &body[..]].concat();
            input.extend_from_slice(&frame);
            match body[0] % 4 {
                0 => expected.extend([&frame[..], &frame].concat()),
                1 => {}
                _ => {
                    expected.extend(frame);
                    expected.extend(position.is_multiple_of(2).then_some(0));
                }
            }
        }
        let (mut client, mut source) = tokio::io::duplex(300);
        let (mut destination, mut node) = tokio::io::duplex(window);
        let budget = HoldBudget::new(MADE);
        let mut direction = Direction::default();
        let mut position = 0_u32;
        let mut decider = script(|bytes| {
            let step = decide(bytes, !position.is_multiple_of(2));
            let decided = !matches!(step.then, Then::Wait { .. });
            position += u32::from(decided);
            step
        });
        let (mut out, mut at) = (Vec::new(), 0);
        for piece in pieces.iter().cycle().take(100_000) {
            let more = &input[at..(at + piece).min(input.len())];
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(length)) = Pin::new(&mut client).poll_write(&mut cx, more) {
                at += length;
            }
            let progress = poll(&mut direction, (&mut source, &mut destination), &budget, &mut decider);
            prop_assert!(matches!(progress, Progress::Blocked | Progress::Yield), "{progress:?}");
            out.extend(read_all(&mut node));
            if at == input.len() && direction.is_idle() && !direction.asks_again && out.len() >= expected.len() {
                break;
            }
        }
        prop_assert_eq!(out, expected);
        prop_assert_eq!(budget.held(), 0);
    }
}
