//! Why a command is refused: one table of codes, each with a line for the user (en, ko) and one for the operator.
//!
//! The numbers are those of `common/v1/reason.proto` (`tests/reasons.rs` holds the two together) and lie in logs:
//! never renumber, never reuse.

macro_rules! reasons {
    ($($name:ident = $number:literal, $code:literal, $en:literal, $ko:literal, $operator:literal;)*) => {
        /// Why a command was refused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Reason { $(#[doc = $operator] $name = $number,)* }

        impl Reason {
            /// Every reason, in order of number.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];
            /// The code in APIs and histories.
            #[must_use]
            pub const fn code(self) -> &'static str { match self { $(Reason::$name => $code,)* } }
            /// The number on wire and disk.
            #[must_use]
            pub const fn number(self) -> u16 { self as u16 }
            /// The reason of a number.
            #[must_use]
            pub const fn from_number(n: u16) -> Option<Reason> { match n { $($number => Some(Reason::$name),)* _ => None } }
            /// For the user, in English.
            #[must_use]
            pub const fn english(self) -> &'static str { match self { $(Reason::$name => $en,)* } }
            /// For the user, in Korean.
            #[must_use]
            pub const fn korean(self) -> &'static str { match self { $(Reason::$name => $ko,)* } }
            /// For the operator.
            #[must_use]
            pub const fn operator(self) -> &'static str { match self { $(Reason::$name => $operator,)* } }
        }
    };
}

reasons! {
    Low = 1, "low", "Someone is ahead of you. Bid higher.", "더 높은 금액을 입력해 주세요.", "Amount below the least next bid.";
    Closed = 2, "closed", "This auction has ended.", "이미 종료된 경매입니다.", "Arrived at or after the deadline, or after a cancel.";
    NotOpen = 3, "not_open", "This auction has not started yet.", "아직 시작하지 않은 경매입니다.", "The auction is a draft or scheduled: it can't be joined or bid on.";
    Paused = 4, "paused", "The auction is paused.", "경매가 일시 중지되었습니다.", "The auction is paused.";
    Own = 5, "own", "You can't bid on your own item.", "본인 상품에는 입찰할 수 없습니다.", "The seller bid on the own auction.";
    Leading = 6, "leading", "You are already leading.", "이미 최고 입찰자입니다.", "The bidder leads already and this raises no maximum.";
    Auth = 7, "auth", "Please sign in to do this.", "로그인이 필요합니다.", "The actor lacks the right (guest where guests may not bid, not the seller, not an operator).";
    Rate = 8, "rate", "Too many requests. Please slow down.", "요청이 너무 많습니다. 잠시 후 다시 시도해 주세요.", "A rate or refusal bound of this actor is used up.";
    DupBody = 9, "dup_body", "This request was already used for something else.", "이미 다른 요청에 사용된 번호입니다.", "The same command id came with another body.";
    NotFound = 10, "not_found", "There is no such auction.", "존재하지 않는 경매입니다.", "Unknown auction id.";
    Taken = 11, "taken", "This id is already in use.", "이미 사용 중인 ID입니다.", "Create with an id that exists.";
    Invalid = 12, "invalid", "Some of the values are not allowed.", "허용되지 않는 값이 있습니다.", "A field is out of its bounds.";
    WrongPhase = 13, "wrong_phase", "This can't be done now.", "지금은 할 수 없는 작업입니다.", "The lifecycle table doesn't allow the command in this phase.";
    Stale = 14, "stale", "Someone changed it meanwhile. Reload and try again.", "다른 변경이 있었습니다. 새로고침 후 다시 시도해 주세요.", "The version that the sender saw is not the newest.";
    TooBig = 15, "too_big", "This amount is too large.", "금액이 너무 큽니다.", "Amount above the largest that is handled.";
    Expired = 16, "expired", "This request is too old. Please send a new one.", "너무 오래된 요청입니다. 새로 요청해 주세요.", "First sent longer ago than refusals are remembered, and no verdict on its id is known.";
    Lost = 17, "lost", "The record of this auction was lost. Please contact us.", "이 경매의 기록이 유실되었습니다. 고객센터에 문의해 주세요.", "Settled, and no disk could give its record back when the shard was founded anew.";
}
