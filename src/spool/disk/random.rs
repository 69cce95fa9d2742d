//! Random bits for unique names.
//!
//! Not what they name. Invariant: they come from the kernel, so two processes never get the same name.

/// 128 random bits from the kernel.
pub(in crate::spool) fn random_bits() -> u128 {
    let mut bytes = [0u8; 16];
    // getrandom(2) without flags always returns 16 bytes on Linux >= 5.6.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u128::from_le_bytes(bytes)
}
