/**
 * VM uuids: 16 raw bytes in textual order on the wire, all zero when the VM has none.
 *
 * @module
 */

/** Bytes of a uuid. */
export const UUID_BYTES = 16;

/**
 * Parses `00112233-4455-6677-8899-aabbccddeeff`; undefined gives the all-zero uuid.
 *
 * @throws {TypeError} for any other form.
 */
export function parseUuid(text: string | undefined): Uint8Array {
  const bytes = new Uint8Array(UUID_BYTES);
  if (text === undefined) return bytes;
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) {
    throw new TypeError(`Cannot parse uuid: ${text}, must be 8-4-4-4-12 hexadecimal digits`);
  }
  const digits = text.replaceAll("-", "");
  for (let at = 0; at < UUID_BYTES; at++)
    bytes[at] = parseInt(digits.slice(at * 2, at * 2 + 2), 16);
  return bytes;
}

/** Text form of 16 raw bytes. */
export function formatUuid(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
