//! Which partition a key belongs to, as Kafka's Java clients reckon it.

/// The partition of a key: murmur2 with its sign bit off, modulo the number of partitions
/// (`BuiltInPartitioner.partitionForKey`). Every client that does the same keeps one key in one
/// partition.
pub(crate) fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or_default();
    positive % partitions.max(1)
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Java's arrays are no longer than this.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Utils.murmur2` of kafka-clients 4.1 gives, run once in Java.
    #[test]
    fn hashes_are_those_of_kafkas_java_client() {
        for (key, hash) in JAVA {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn every_partition_is_one_that_there_is() {
        for number in 0..1_000 {
            assert!((0..12).contains(&partition_of(format!("key {number}").as_bytes(), 12)));
        }
    }

    const JAVA: [(&str, i32); 13] = [
        ("", 275646681),
        ("a", -1563381124),
        ("ab", 316155434),
        ("abc", 479470107),
        ("abcd", -1323649548),
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("9eeec548fe31b7e38fcb0f946ea5c649", -975143994),
        ("ffffffffffffffffffffffffffffffff", -145913985),
        ("00000000000000000000000000000000", -321145327),
        ("0198c7a4-0000-7000-8000-000000000000", 629418460),
        ("é€", 1912689889),
    ];
}
