/**
 * The VM description at the end of a stream: JSON that lists the sections of all devices with their
 * fields (main channel description, section 8). QEMU sends it for debugging and reads it nowhere, so
 * nothing in it is taken for granted.
 *
 * @module
 */
import { Section } from "./main_stream.ts";

/** A description and where it lies. */
export interface FoundDescription {
  /** Offset of the end mark, the byte in front of the description's section. */
  readonly endMarkAt: number;
  /** The parsed JSON, an object with a list `devices`. */
  readonly json: Readonly<Record<string, unknown>> & { readonly devices: readonly unknown[] };
}

const HEADER_BYTES = 6; // end mark, section type, u32 length
const TRIES_MAX = 8; // bytes of the length may look like the opening brace

/**
 * Finds the description that ends exactly with `bytes`. It holds no NUL and the length in front of
 * it does, unless it is above 16 MiB, so the search starts at the last NUL.
 */
export function findDescription(bytes: Uint8Array): FoundDescription | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.at(-1) !== CLOSING_BRACE) return undefined;
  let start = bytes.lastIndexOf(0);
  for (let tries = 0; tries < TRIES_MAX && start >= 0; tries++) {
    start = bytes.indexOf(OPENING_BRACE, start + 1);
    const at = start - HEADER_BYTES;
    if (at < 0 || bytes[at] !== Section.EOF || bytes[at + 1] !== Section.VM_DESCRIPTION) continue;
    if (view.getUint32(at + 2) !== bytes.byteLength - start) continue;
    const json = parseDescription(bytes.subarray(start));
    if (json !== undefined) return { endMarkAt: at, json };
  }
  return undefined;
}

/** Parses a description; undefined when it is none. */
export function parseDescription(text: Uint8Array): FoundDescription["json"] | undefined {
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(text));
    const isDescription =
      typeof json === "object" && json !== null && "devices" in json && Array.isArray(json.devices);
    return isDescription ? (json as FoundDescription["json"]) : undefined;
  } catch {
    return undefined; // any other text
  }
}

const OPENING_BRACE = 0x7b;
const CLOSING_BRACE = 0x7d;
