//! XXH64, with seed and input as in the published specification: the same in all versions, on all platforms and in all
//! processes.
//!
//! It decides key groups and identifies redelivered messages, and `with_text` makes digests of readings. All of these are part of
//! the checkpoint format. It is no defence against chosen collisions; tables in memory use a keyed hash.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 of `bytes` under `seed`.
pub(super) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, tail) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() { seed.wrapping_add(PRIME_5) } else { long_input(stripes, seed) };
    hash = hash.wrapping_add(bytes.len() as u64);
    avalanche(remainder(hash, tail))
}

/// Adds a short text to a hash, by one multiplication for up to 16 bytes. The result is the same in all versions, as that of
/// [`xxh64`].
#[inline(always)]
pub(super) fn with_text(hash: u64, text: &[u8]) -> u64 {
    let (low, high) = if text.len() > 16 {
        (xxh64_of_long_text(text, hash), 0)
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
    } else {
        let mut short = [0; 4];
        short.iter_mut().zip(text).for_each(|(to, byte)| *to = *byte);
        (u64::from(u32::from_le_bytes(short)), 0)
    };
    let seed = hash.wrapping_add(text.len() as u64);
    let product = u128::from(low ^ seed ^ PRIME_1) * u128::from(high ^ seed.rotate_left(32) ^ PRIME_2);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cold]
fn xxh64_of_long_text(text: &[u8], seed: u64) -> u64 {
    xxh64(text, seed)
}

fn long_input(stripes: &[[u8; 32]], seed: u64) -> u64 {
    let mut lanes = [
        seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
        seed.wrapping_add(PRIME_2),
        seed,
        seed.wrapping_sub(PRIME_1),
    ];
    for stripe in stripes {
        for (lane, input) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *lane = round(*lane, u64::from_le_bytes(*input));
        }
    }
    let [a, b, c, d] = lanes;
    let joined =
        a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
    lanes.iter().fold(joined, |hash, &lane| (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
}

fn remainder(mut hash: u64, tail: &[u8]) -> u64 {
    let (words, mut rest) = tail.as_chunks::<8>();
    for word in words {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    if let Some((half, after)) = rest.split_first_chunk::<4>() {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = after;
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

fn avalanche(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(PRIME_2);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: u64) {
        assert_eq!(xxh64(text.as_bytes(), 0), expected, "{text:?}");
    }

    #[test]
    fn texts_of_all_lengths_are_told_apart() {
        let bytes: Vec<u8> = (1..=40).collect();
        let mut hashes: Vec<u64> = (0..=40).map(|len| with_text(7, &bytes[..len])).collect();
        // Each byte counts, and so does the hash before.
        for len in 1..=40 {
            hashes.extend((0..len).map(|at| {
                let mut other = bytes[..len].to_vec();
                other[at] ^= 1;
                with_text(7, &other)
            }));
            hashes.push(with_text(8, &bytes[..len]));
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
        // They are part of the checkpoint format.
        let known = [0, 1, 2, 3, 4, 7, 8, 16, 17].map(|len| with_text(7, &bytes[..len]));
        assert_eq!(
            known,
            [
                9_374_611_700_347_891_214,
                8_801_074_121_635_490_032,
                11_652_569_146_902_650_570,
                6_970_557_831_803_517_906,
                7_971_596_235_210_521_609,
                17_378_760_463_354_610_593,
                1_311_894_567_253_078_869,
                17_711_825_633_542_924_374,
                17_072_590_187_974_029_525
            ]
        );
    }

    #[test]
    fn published_vectors() {
        check("", 0xef46_db37_51d8_e999);
        check("a", 0xd24e_c4f1_a98c_6e5b);
        check("abc", 0x44bc_2cf5_ad77_0999);
        check("Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn the_seed_counts() {
        assert_ne!(xxh64(b"abc", 0), xxh64(b"abc", 1));
    }
}
