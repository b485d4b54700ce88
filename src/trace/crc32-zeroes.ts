// The CRC-32 of runs of zeroes without reading them. A CRC is a polynomial over GF(2) [zlib "crc32_combine"]; another zero
// byte multiplies it by x^8 modulo the polynomial, so n of them multiply it by x^(8n), found by squaring.

/** x^32 + x^26 + ... + 1 with its bits reversed, as the CRC itself is. */
const POLYNOMIAL = 0xedb8_8320;
/** x^0. */
const ONE = 0x8000_0000;
/** x^8. */
const ONE_BYTE = 0x0080_0000;

/** The CRC-32 of something whose CRC-32 is `crc`, followed by `count` zero bytes. */
export function crc32Zeroes(crc: number, count: number): number {
  let power = ONE_BYTE;
  let factor = ONE;
  for (let left = count; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) factor = multiply(factor, power);
    power = multiply(power, power);
  }
  // The CRC is kept inverted at both ends.
  return (multiply(factor, ~crc >>> 0) ^ 0xffff_ffff) >>> 0;
}

function multiply(a: number, b: number): number {
  let product = 0;
  let term = b;
  for (let bit = ONE; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) product ^= term;
    term = (term & 1) === 0 ? term >>> 1 : (term >>> 1) ^ POLYNOMIAL;
  }
  return product >>> 0;
}
