/**
 * QEMU's name for a migration file, `file:PATH[,offset=N]`.
 *
 * @module
 */

/** A file and where its stream starts. */
export interface FileUri {
  readonly path: string;
  /** Bytes in front of the stream. */
  readonly offset: number;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  p: 2 ** 50,
};

/**
 * Reads `file:PATH[,offset=N]`; `file:` may be missing. N is decimal, with a suffix k, M, G, T or P
 * for powers of 1024 if wanted, or hexadecimal without one.
 *
 * @throws {RangeError} for an offset that is none, such as `0x20M`.
 */
export function parseFileUri(text: string): FileUri {
  const name = text.startsWith("file:") ? text.slice("file:".length) : text;
  const [, path = name, offsetText] = /^(.*),offset=([^,]*)$/s.exec(name) ?? [];
  if (path === "") throw new RangeError(`Cannot use file ${text}: the path is empty`);
  if (offsetText === undefined) return { path, offset: 0 };
  const offset = parseOffset(offsetText);
  if (offset === undefined) {
    throw new RangeError(
      `Cannot use offset ${offsetText}: must be bytes, decimal with k, M, G, T, P or hexadecimal without`,
    );
  }
  return { path, offset };
}

function parseOffset(text: string): number | undefined {
  const [, hexadecimal, decimal, unit = ""] =
    /^(?:(0x[0-9a-f]+)|(\d+)([bkmgtp]?))$/i.exec(text) ?? [];
  const offset = Number(hexadecimal ?? decimal) * (UNITS[unit.toLowerCase()] ?? NaN);
  return Number.isSafeInteger(offset) ? offset : undefined;
}
