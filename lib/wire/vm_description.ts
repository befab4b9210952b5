/**
 * The VM description at the end of a stream: JSON that lists the sections of all devices with their
 * fields (main channel description, section 8). QEMU sends it for debugging and reads it nowhere, so
 * nothing in it is taken for granted. Text that would become more than its length is worth, or nest
 * deeper than devices do, is no description.
 *
 * @module
 */
import { DESCRIPTION_BYTES_MAX, DESCRIPTION_DEPTH_MAX, DESCRIPTION_VALUES_MAX } from "../limits.ts";
import { Section } from "./main_stream.ts";

/** A description and where it lies. */
export interface FoundDescription {
  /** Offset of the end mark, the byte in front of the description's section. */
  readonly endMarkAt: number;
  /** The parsed JSON, an object with a list `devices`. */
  readonly json: Readonly<Record<string, unknown>> & { readonly devices: readonly unknown[] };
}

const HEADER_BYTES = 6; // end mark, section type, u32 length
/** How far behind the length's last NUL the text can begin: up to three more bytes of length. */
const LENGTH_TAIL_BYTES = 4;

/**
 * Finds the description that ends exactly with `bytes`. It holds no NUL and the length in front of
 * it does, so it begins right behind the last NUL.
 *
 * @param lastNul Where that is, for who knows; -1 when there is none.
 */
export function findDescription(
  bytes: Uint8Array,
  lastNul = bytes.lastIndexOf(0),
): FoundDescription | undefined {
  if (bytes.at(-1) !== CLOSING_BRACE || lastNul < 0) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let start = lastNul + 1; start <= lastNul + LENGTH_TAIL_BYTES; start++) {
    const at = start - HEADER_BYTES;
    if (at < 0 || bytes[start] !== OPENING_BRACE) continue;
    if (bytes[at] !== Section.EOF || bytes[at + 1] !== Section.VM_DESCRIPTION) continue;
    if (view.getUint32(at + 2) !== bytes.byteLength - start) continue;
    const json = parseDescription(bytes.subarray(start));
    if (json !== undefined) return { endMarkAt: at, json };
  }
  return undefined;
}

/** Parses a description; undefined when it is none, or beyond the limits of one. */
function parseDescription(text: Uint8Array): FoundDescription["json"] | undefined {
  if (text.byteLength > DESCRIPTION_BYTES_MAX || !isWithinLimits(text)) return undefined;
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(text));
    const isDescription =
      typeof json === "object" && json !== null && "devices" in json && Array.isArray(json.devices);
    return isDescription ? (json as FoundDescription["json"]) : undefined;
  } catch {
    return undefined; // any other text
  }
}

/** Counts what a parser would make of JSON text: values by what stands in front of each, and depth. */
function isWithinLimits(text: Uint8Array): boolean {
  let values = 0;
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.byteLength; at++) {
    const byte = text[at];
    if (byte === QUOTE) inString = !inString;
    else if (inString) {
      if (byte === BACKSLASH) at++;
    } else if (byte === OPENING_BRACE || byte === OPENING_BRACKET) {
      values++;
      if (++depth > DESCRIPTION_DEPTH_MAX) return false;
    } else if (byte === CLOSING_BRACE || byte === CLOSING_BRACKET) depth--;
    else if (byte === COMMA || byte === COLON) values++;
    if (values > DESCRIPTION_VALUES_MAX) return false;
  }
  return true;
}

const OPENING_BRACE = 0x7b;
const CLOSING_BRACE = 0x7d;
const OPENING_BRACKET = 0x5b;
const CLOSING_BRACKET = 0x5d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
