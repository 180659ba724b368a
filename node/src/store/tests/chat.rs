//! Channels: numbers without gaps, whoever writes, and what is swept.

use std::time::Duration;

use rookery_protocol::client::ChatLine;

use super::*;

suite! {
    lines_are_numbered_by_channel_without_gaps,
    one_writers_lines_keep_their_order,
    a_reader_never_sees_a_hole,
    a_channel_is_read_from_either_end,
    a_matchs_line_is_written_once_and_under_its_epoch_only,
    old_lines_are_swept_and_numbers_go_on,
}

fn line(channel: &str, text: &str) -> NewLine {
    NewLine {
        channel: channel.into(),
        sender: "someone".into(),
        text: text.into(),
        effect: None,
    }
}

async fn append(store: &Store, channel: &str, text: &str) -> u64 {
    let written = store.append_line(line(channel, text)).await.unwrap().unwrap();
    assert!(!written.is_repeat);
    written.number
}

async fn lines_are_numbered_by_channel_without_gaps(place: &Place) {
    let (one, two) = (place.open().await, place.open().await);
    const LINES: u64 = 300;
    let writers = [&one, &two].into_iter().enumerate().flat_map(|(writer, store)| {
        (0..LINES).map(move |no| {
            let (store, channel) = (store.clone(), if no % 3 == 0 { "room:b" } else { "room:a" });
            async move {
                (
                    writer,
                    channel,
                    append(&store, channel, &format!("{writer}/{no}")).await,
                )
            }
        })
    });
    let mut seen: std::collections::BTreeMap<&str, Vec<u64>> = Default::default();
    let mut of_writer = [0; 4];
    for (writer, channel, number) in all(writers).await {
        seen.entry(channel).or_default().push(number);
        of_writer[writer] += 1;
    }
    for (channel, mut numbers) in seen {
        numbers.sort_unstable();
        let count = numbers.len() as u64;
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "{channel}");
        let view = one.view_channel(channel, 0, 1_000).await.unwrap();
        assert_eq!(view.last, count);
        assert!(view.lines.iter().map(|line| line.message).eq(1..=count));
        assert_eq!(two.last_lines(&[channel]).await.unwrap(), [(channel.to_owned(), count)]);
    }
    assert_eq!(of_writer[..2], [LINES, LINES]);
}

async fn one_writers_lines_keep_their_order(place: &Place) {
    let store = place.open().await;
    let queued: Vec<_> = (0..100)
        .map(|no| store.append_line(line("room:a", &no.to_string())))
        .collect();
    let written = futures_util::future::join_all(queued).await;
    assert!(
        written
            .into_iter()
            .map(|line| line.unwrap().unwrap().number)
            .eq(1..=100)
    );
    let view = store.view_channel("room:a", 0, 1_000).await.unwrap();
    let texts: Vec<String> = view.lines.iter().map(|line| line.text.to_string()).collect();
    assert_eq!(texts, (0..100).map(|no| no.to_string()).collect::<Vec<_>>());
}

async fn a_reader_never_sees_a_hole(place: &Place) {
    let (one, two) = (place.open().await, place.open().await);
    let writers: Vec<_> = [one, two]
        .into_iter()
        .map(|store| {
            tokio::spawn(async move {
                for _ in 0..20 {
                    let queued: Vec<_> = (0..25).map(|_| store.append_line(line("room:full", "word"))).collect();
                    for written in futures_util::future::join_all(queued).await {
                        written.unwrap().unwrap();
                    }
                }
            })
        })
        .collect();
    let store = place.open().await;
    let mut read = 0;
    while read < 1_000 {
        let view = store.view_channel("room:full", read, 50).await.unwrap();
        let through = view.last.min(read + 50);
        let page = store.lines_between("room:full", read, through, 50).await.unwrap();
        assert!(page.iter().map(|line| line.message).eq(read + 1..=through));
        read = through;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn a_channel_is_read_from_either_end(place: &Place) {
    let store = place.open().await;
    let empty = store.view_channel("room:a", 0, 10).await.unwrap();
    assert_eq!(
        empty,
        ChannelView {
            last: 0,
            lines: Vec::new(),
            at_ms: 0
        }
    );
    for no in 1..=9 {
        append(&store, "room:a", &format!("line {no} with ünicode")).await;
    }
    let numbers = |lines: &[ChatLine]| lines.iter().map(|line| line.message).collect::<Vec<_>>();
    let view = store.view_channel("room:a", 2, 3).await.unwrap();
    assert_eq!((view.last, numbers(&view.lines)), (9, vec![7, 8, 9]));
    assert_eq!(&*view.lines[0].text, "line 7 with ünicode");
    assert_eq!(&*view.lines[0].from, "someone");
    assert!(view.lines[0].at > 1_600_000_000_000);
    assert!(view.at_ms >= view.lines[2].at && view.at_ms < view.lines[2].at + 60_000);
    let view = store.view_channel("room:a", 0, 0).await.unwrap();
    assert_eq!((view.last, view.lines.len()), (9, 0));
    assert_eq!(numbers(&store.lines_before("room:a", 5, 2).await.unwrap()), [3, 4]);
    assert_eq!(
        numbers(&store.lines_before("room:a", 1 << 40, 2).await.unwrap()),
        [8, 9]
    );
    assert_eq!(numbers(&store.lines_between("room:a", 3, 8, 2).await.unwrap()), [4, 5]);
}

async fn a_matchs_line_is_written_once_and_under_its_epoch_only(place: &Place) {
    let store = place.open().await;
    let new = new_match();
    let id = new.id;
    store.create_match(new).await.unwrap();
    let effect = |index, epoch| {
        let id = EffectId {
            match_id: id,
            incarnation: 0,
            event: 7,
            index,
        };
        NewLine {
            effect: Some((id, epoch)),
            ..line("match:it", "the round is over")
        }
    };
    let first = store.append_line(effect(0, 1)).await.unwrap().unwrap();
    assert_eq!((first.number, first.is_repeat), (1, false));
    let repeat = store.append_line(effect(0, 1)).await.unwrap().unwrap();
    assert_eq!((repeat.number, repeat.at_ms, repeat.is_repeat), (1, first.at_ms, true));
    assert_eq!(store.append_line(effect(1, 2)).await.unwrap(), Err(Fenced));
    let twice = futures_util::future::join(store.append_line(effect(1, 1)), store.append_line(effect(2, 1))).await;
    assert_eq!(twice.0.unwrap().unwrap().number, 2);
    assert_eq!(twice.1.unwrap().unwrap().number, 3);
    assert_eq!(store.view_channel("match:it", 0, 10).await.unwrap().last, 3);
}

async fn old_lines_are_swept_and_numbers_go_on(place: &Place) {
    let store = place.open().await;
    for _ in 0..30 {
        append(&store, "room:a", "word").await;
        append(&store, "room:b", "word").await;
    }
    let day_ms = 86_400_000;
    let swept = store.sweep_lines("", 1, day_ms, 10).await.unwrap();
    assert_eq!((swept.deleted, swept.after.as_deref()), (20, Some("room:a")));
    let swept = store.sweep_lines("room:a", 1, day_ms, 100).await.unwrap();
    assert_eq!((swept.deleted, swept.after.as_deref()), (0, Some("room:b")));
    assert_eq!(store.sweep_lines("room:b", 1, day_ms, 100).await.unwrap().after, None);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(store.sweep_lines("room:a", 10, 10, 100).await.unwrap().deleted, 30);
    assert_eq!(store.view_channel("room:b", 0, 10).await.unwrap().lines, []);
    assert_eq!(append(&store, "room:b", "word").await, 31);
    let kept = store.view_channel("room:a", 0, 100).await.unwrap();
    assert!(kept.lines.iter().map(|line| line.message).eq(21..=30));
}
