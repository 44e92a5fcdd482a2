/** Numbers as Python prints them, so that this device's reasons are the server's, word for word. */

/** `f"{value:.{digits}f}"` for 0 to 2 digits: exact halves go to the even neighbour, where `toFixed` goes up. */
export function fixed(value: number, digits: 0 | 1 | 2): string {
  const scale = 10 ** digits;
  const halves = 2 * 2 ** digits; // exact ties are odd multiples of 1/2, of 1/20 those of 1/4, of 1/200 those of 1/8
  if (Math.abs((value * halves) % 2) !== 1) return value.toFixed(digits);
  const below = Math.floor(value * scale);
  return ((below % 2 === 0 ? below : below + 1) / scale).toFixed(digits);
}

/** `f"{share:.{digits}%}"` */
export function percent(share: number, digits: 0 | 1): string {
  return `${fixed(share * 100, digits)}%`;
}

/** `f"{count:,}"` */
export function thousands(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `repr` of bytes. */
export function bytesRepr(bytes: Uint8Array): string {
  const quote = bytes.includes(39) && !bytes.includes(34) ? '"' : "'";
  return `b${quote}${Array.from(bytes, (byte) => byteRepr(byte, quote)).join("")}${quote}`;
}

const ESCAPED: Record<number, string> = { 9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\" };

function byteRepr(byte: number, quote: string): string {
  const escaped = ESCAPED[byte];
  if (escaped) return escaped;
  if (byte < 32 || byte > 126) return `\\x${byte.toString(16).padStart(2, "0")}`;
  const character = String.fromCharCode(byte);
  return character === quote ? `\\${character}` : character;
}
