/** Content for the state of devices that can be made piece by piece and told apart. */

/** Bytes `from` up to `from + length` of the state number `seed`; no piece equals another. */
export function deviceBytes(seed: number, from: number, length: number): Uint8Array<ArrayBuffer> {
  const firstWord = Math.floor(from / 4);
  const words = new Uint32Array(Math.ceil((from + length) / 4) - firstWord);
  for (let at = 0; at < words.length; at++) {
    words[at] = Math.imul(firstWord + at + 1, 0x9e37_79b1) ^ Math.imul(seed + 1, 0x85eb_ca6b);
  }
  const start = from - firstWord * 4;
  return new Uint8Array(words.buffer).subarray(start, start + length);
}

/** Lengths that `saveChunks()` of the device tasks queues. */
export function chunkLengths(chunks: number, bytes: number): number[] {
  return Array.from({ length: chunks }, (_, chunk) => 1 + ((chunk * 7919) % bytes));
}
