use super::*;

const ROOM: RoomId = RoomId(7);
const NOW: Wall = Wall::from_millis(1_790_000_000_000);

fn key(id: u8) -> Key {
    Key::new(id, &[id; 32])
}

fn keys() -> Keys {
    Keys::new(key(1), None)
}

fn waiting() -> Ticket {
    Ticket {
        room: ROOM,
        place: Place {
            arrival: NOW,
            guard: GuardId(3),
            serial: 4,
        },
        seen: NOW,
        kind: Kind::Waiting { position: 99 },
    }
}

fn admitted() -> Ticket {
    let until = NOW.after(Duration::from_mins(5));
    Ticket {
        kind: Kind::Admitted { until },
        ..waiting()
    }
}

#[test]
fn a_ticket_reads_as_it_was_written_and_fits_a_cookie_and_a_url() {
    for ticket in [waiting(), admitted()] {
        let text = keys().write(&ticket);
        assert_eq!(text.len(), LENGTH);
        assert!(text.len() <= 128);
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        assert_eq!(keys().read(&text, ROOM, NOW), Ok(ticket));
    }
}

#[test]
fn a_ticket_changed_in_any_character_is_refused() {
    let text = keys().write(&admitted());
    for place in 0..text.len() {
        for other in [b'A', b'Q', b'_', b'+', b' '] {
            let mut bytes = text.clone().into_bytes();
            if bytes[place] == other {
                continue;
            }
            bytes[place] = other;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(keys().read(&changed, ROOM, NOW).is_err(), "{changed}");
        }
    }
}

#[test]
fn a_ticket_cut_short_or_made_longer_is_malformed() {
    let text = keys().write(&waiting());
    for length in 0..text.len() {
        let refusal = keys().read(&text[..length], ROOM, NOW);
        assert_eq!(refusal, Err(Refusal::Malformed));
    }
    for tail in ["A", "=", "AAAA"] {
        let refusal = keys().read(&format!("{text}{tail}"), ROOM, NOW);
        assert_eq!(refusal, Err(Refusal::Malformed));
    }
}

#[test]
fn a_ticket_signed_with_another_secret_is_forged_even_under_a_known_number() {
    let text = Keys::new(Key::new(1, &[9; 32]), None).write(&admitted());
    assert_eq!(keys().read(&text, ROOM, NOW), Err(Refusal::Forged));
}

#[test]
fn two_keys_are_good_at_once_and_a_third_is_not() {
    let old = keys().write(&waiting());
    let new = Keys::new(key(2), Some(key(1)));
    assert_eq!(new.read(&old, ROOM, NOW), Ok(waiting()));
    assert_eq!(
        new.read(&new.write(&waiting()), ROOM, NOW),
        Ok(waiting()),
        "the new key signs"
    );
    let ahead = Keys::new(key(1), Some(key(2)));
    assert_eq!(
        ahead.read(&new.write(&waiting()), ROOM, NOW),
        Ok(waiting()),
        "a key is honoured before it signs"
    );
    let later = Keys::new(key(3), Some(key(2)));
    assert_eq!(later.read(&old, ROOM, NOW), Err(Refusal::UnknownKey(1)));
}

#[test]
fn a_ticket_of_another_room_version_or_kind_is_refused() {
    let text = keys().write(&waiting());
    let refusal = keys().read(&text, RoomId(8), NOW);
    assert_eq!(refusal, Err(Refusal::OtherRoom));

    let signed = |change: fn(&mut [u8])| {
        let mut bytes = body(&waiting(), 1);
        change(&mut bytes);
        let mut mac = key(1).mac;
        mac.update(&bytes);
        let signature = mac.finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&bytes[..], &signature[..]].concat())
    };
    let other = signed(|body| body[0] = 2);
    assert_eq!(keys().read(&other, ROOM, NOW), Err(Refusal::Version(2)));
    let other = signed(|body| body[2] = 2);
    assert_eq!(keys().read(&other, ROOM, NOW), Err(Refusal::Malformed));
    let other = signed(|body| body[35] = 1);
    assert_eq!(keys().read(&other, ROOM, NOW), Err(Refusal::Malformed));
}

#[test]
fn a_ticket_from_the_future_is_refused_but_for_a_small_skew() {
    let ahead = |span| {
        let arrival = NOW.after(span);
        let place = Place {
            arrival,
            ..waiting().place
        };
        Ticket { place, ..waiting() }
    };
    let skewed = ahead(SKEW);
    let text = keys().write(&skewed);
    assert_eq!(keys().read(&text, ROOM, NOW), Ok(skewed));
    let text = keys().write(&ahead(SKEW + Duration::from_millis(1)));
    assert_eq!(keys().read(&text, ROOM, NOW), Err(Refusal::FromTheFuture));

    let seen = NOW.after(SKEW * 2);
    let text = keys().write(&Ticket { seen, ..waiting() });
    assert_eq!(keys().read(&text, ROOM, NOW), Err(Refusal::FromTheFuture));
}

#[test]
fn a_session_and_a_place_end() {
    let text = keys().write(&admitted());
    let end = NOW.after(Duration::from_mins(5));
    let just = end.before(Duration::from_millis(1));
    assert_eq!(keys().read(&text, ROOM, just), Ok(admitted()));
    assert_eq!(keys().read(&text, ROOM, end), Err(Refusal::Expired));

    let text = keys().write(&waiting());
    let end = NOW.after(LIFETIME);
    assert_eq!(keys().read(&text, ROOM, end), Err(Refusal::Expired));
}

#[test]
fn a_key_is_never_printed() {
    let secret = [65; 32];
    let shown = format!("{:?}", Keys::new(Key::new(1, &secret), None));
    assert_eq!(shown, "Keys { signing: Key { id: 1, .. }, honoured: None }");
}

#[test]
fn nobody_is_in_for_longer_than_a_day_without_coming_anew() {
    let end = NOW.after(ADMISSION);
    let renewed = Ticket {
        seen: end.before(Duration::from_mins(1)),
        kind: Kind::Admitted {
            until: end.after(Duration::from_mins(4)),
        },
        ..waiting()
    };
    let just_before = end.before(Duration::from_millis(1));
    assert_eq!(renewed.check(ROOM, just_before), Ok(renewed));
    assert_eq!(renewed.check(ROOM, end), Err(Refusal::Expired));
}
