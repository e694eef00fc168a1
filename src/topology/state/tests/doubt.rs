//! What one word alone says, of nodes that are up and of others.

use super::*;

#[test]
fn a_node_that_is_up_moves_only_when_that_is_confirmed_or_it_is_up_no_more() {
    let stays = "a up .1 H1, b up .2 H2";
    check("nodes a=.7? b=.2", stays, &[(".1", "current a"), (".7", "unknown")]);
    check("nodes a=.7? b=.2 \n nodes a=.7? b=.2", stays, &[]);
    check("nodes a=.7? b=.2 \n nodes a=.1 b=.2", stays, &[]);
    check("nodes a=.7? b=.2 \n nodes a=.7 b=.2", "a! down .7 H1, b up .2 H2", &[(".1", "former a")]);
    check("nodes a=.7? b=.2 \n a dead .1", "a! down .7 H1, b up .2 H2", &[(".1", "former a")]);
    check("nodes a=.7? b=.2 \n a dead .1 \n a alive .7 H1", "a up .7 H1, b up .2 H2", &[]);
    // At its address answers another cluster's.
    check("nodes a=.7? b=.2 \n a alive .1 H1@other", "a! down .7 H1, b up .2 H2", &[]);
    check("a dead .1 \n nodes a=.7? b=.2", "a! down .7 H1, b up .2 H2", &[]);
    check("nodes a=.1 b=.2 c=.3? \n c alive .3 H3", "a up .1 H1, b up .2 H2, c up .3 H3", &[]);
}

#[test]
fn a_node_that_is_up_is_away_or_gone_only_when_that_is_confirmed_or_it_is_up_no_more() {
    let stays = "a up .1 H1, b up .2 H2";
    for (doubted, confirmed, after) in [
        ("nodes a=.1-? b=.2", "nodes a=.1- b=.2", "a! down .1 H1, b up .2 H2"),
        ("nodes a=.1x? b=.2", "nodes a=.1x b=.2", "a! gone .1 H1, b up .2 H2"),
    ] {
        check(doubted, stays, &[(".1", "current a")]);
        check(&format!("{doubted} \n {doubted}"), stays, &[]);
        check(&format!("{doubted} \n nodes a=.1 b=.2"), stays, &[]);
        check(&format!("{doubted} \n {confirmed}"), after, &[]);
        check(&format!("{doubted} \n a dead .1"), after, &[]);
        // Whoever answers there later is not asked.
        let later = after.replace('!', "");
        check(&format!("{doubted} \n a dead .1 \n a alive .1 H1"), &later, &[]);
        check(&format!("{doubted} \n a dead .1 \n {doubted}"), &later, &[]);
        check(&format!("a dead .1 \n {doubted} \n a alive .1 H1"), &later, &[]);
    }
}

#[test]
fn where_another_node_is_listed_that_one_answers() {
    check("nodes a=.1-? b=.2 c=.1", "a! down .1 H1, b up .2 H2, c pending .1 -", &[]);
    check("nodes a=.7? b=.2 c=.1", "a! down .7 H1, b up .2 H2, c pending .1 -", &[(".1", "current c")]);
    // Not where it was listed before, and the one that answers has come since.
    check("nodes a=.1 b=.1 \n b alive .1 H2 \n nodes a=.1 b=.1-?", "a up .1 H1, b up .1 H2", &[]);
    // Not where that is in doubt itself: one word would decide after all.
    check("nodes a=.7? b=.1?", "a up .1 H1, b up .2 H2", &[]);
    check("nodes a=.1 b=.1?", "a up .1 H1, b up .2 H2", &[]);
}
