/**
 * Parses the data of a device section by its entry in the VM description: names, types and values of
 * all fields, nested structures and subsections. No device need be known for that.
 *
 * Data and description come from a guest's host and are hostile: every size is checked against the
 * data, and depth and number of fields against limits. An array has as many fields as its description
 * says, but only as long as they take up data: so a file is taken apart into no more than it holds.
 *
 * @module
 */
import { ANALYZED_FIELDS_MAX, DEVICE_FIELDS_DEPTH_MAX } from "../limits.ts";
import { Section } from "../wire/main_stream.ts";

/** A field of a device. */
export interface DeviceField {
  readonly name: string;
  /** QEMU's name of the type, such as `uint32`, `timer`, `buffer`, `struct`. */
  readonly type: string;
  /** Offset in the section's data, in bytes. */
  readonly offset: number;
  readonly bytes: number;
  /** Place in an array. */
  readonly index?: number | undefined;
  /** Numbers up to 2^53, larger ones as decimal text, truth values, everything else as hex. */
  readonly value?: number | string | boolean | undefined;
  /** Fields of a structure. */
  readonly fields?: readonly DeviceField[] | undefined;
  readonly subsections?: readonly DeviceSubsection[] | undefined;
}

/** A part of a device's state that is only sent when it matters. */
export interface DeviceSubsection {
  readonly name: string;
  readonly version: number;
  readonly fields: readonly DeviceField[];
  readonly subsections: readonly DeviceSubsection[];
}

/** A device's data, parsed. */
interface ParsedDevice {
  /** Bytes of the section's data. */
  readonly bytes: number;
  readonly fields: readonly DeviceField[];
  readonly subsections: readonly DeviceSubsection[];
}

/** The description does not fit the data. */
export class DescriptionMismatch extends Error {
  override readonly name = "DescriptionMismatch";
}

type Json = Readonly<Record<string, unknown>>;

const HEX_BYTES_MAX = 64; // of a value; longer ones are cut, since offset and length tell the rest

/** Fields that an analysis may still have, all devices together; those of a failed try count. */
export class FieldBudget {
  #left: number = ANALYZED_FIELDS_MAX;

  /** @throws {DescriptionMismatch} when there are none left. */
  take(): void {
    if (--this.#left < 0) throw mismatch("there are too many fields");
  }
}

/**
 * Parses the data at `at`.
 *
 * @param entry The device's entry in the description.
 * @throws {DescriptionMismatch} when the entry does not describe the data.
 */
export function parseDevice(
  bytes: Uint8Array,
  at: number,
  entry: Json,
  budget: FieldBudget = new FieldBudget(),
): ParsedDevice {
  const parser = new DeviceParser(bytes, at, budget);
  const { fields, subsections } = parser.body(entry, 0);
  return { bytes: parser.at - at, fields, subsections };
}

class DeviceParser {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #start: number;
  readonly #budget: FieldBudget;

  constructor(bytes: Uint8Array, at: number, budget: FieldBudget) {
    this.#budget = budget;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#start = at;
    this.at = at;
  }

  body(entry: Json, depth: number): { fields: DeviceField[]; subsections: DeviceSubsection[] } {
    if (depth > DEVICE_FIELDS_DEPTH_MAX) throw mismatch("its structures are nested too deeply");
    const fields = list(entry["fields"]).flatMap((field) => this.#field(object(field), depth));
    const subsections = list(entry["subsections"]).map((item) =>
      this.#subsection(object(item), depth),
    );
    return { fields, subsections };
  }

  /** One field, or as many as a compressed array has. */
  #field(entry: Json, depth: number): DeviceField[] {
    const count = entry["array_len"] === undefined ? 1 : integer(entry["array_len"]);
    const index = entry["index"] === undefined ? undefined : integer(entry["index"]);
    const elements: DeviceField[] = [];
    for (let place = 0; place < count; place++) {
      const element = this.#element(entry, count > 1 ? place : index, depth);
      elements.push(element);
      if (element.bytes === 0) break; // nor has any after it
    }
    return elements;
  }

  #element(entry: Json, index: number | undefined, depth: number): DeviceField {
    this.#budget.take();
    const name = text(entry["name"]);
    const type = text(entry["type"]);
    const start = this.at;
    const offset = start - this.#start;
    if (entry["struct"] !== undefined) {
      const { fields, subsections } = this.body(object(entry["struct"]), depth + 1);
      return { name, type, offset, bytes: this.at - start, index, fields, subsections };
    }
    const bytes = type === "capability" ? 1 + this.#u8(start) : integer(entry["size"]);
    if (start + bytes > this.#bytes.byteLength) {
      throw mismatch(
        `field ${name} has ${bytes} bytes, ${this.#bytes.byteLength - start} are left`,
      );
    }
    this.at += bytes;
    return { name, type, offset, bytes, index, value: this.#value(type, start, bytes) };
  }

  #subsection(entry: Json, depth: number): DeviceSubsection {
    const name = text(entry["vmsd_name"]);
    if (this.#u8(this.at) !== Section.SUBSECTION) throw mismatch(`subsection ${name} is missing`);
    const nameBytes = this.#u8(this.at + 1);
    const end = this.at + 2 + nameBytes + 4;
    if (end > this.#bytes.byteLength) throw mismatch(`subsection ${name} is cut`);
    const named = new TextDecoder().decode(this.#bytes.subarray(this.at + 2, end - 4));
    if (named !== name) throw mismatch(`subsection ${named} is where ${name} must be`);
    this.#budget.take();
    const version = this.#view.getUint32(end - 4);
    this.at = end;
    return { name, version, ...this.body(entry, depth + 1) };
  }

  #value(type: string, at: number, bytes: number): number | string | boolean {
    // "equal" and "le" (less or equal) are checks on loading; all integers are big-endian.
    const numeric = /^(u?)int(8|16|32|64)(?: equal| le)?$/.exec(type);
    if (numeric !== null && Number(numeric[2]) === bytes * 8) {
      return this.#number(at, bytes, numeric[1] === "u");
    }
    if (type === "bool" && bytes === 1) return this.#bytes[at] !== 0;
    if (type === "timer" && bytes === 8) return this.#number(at, bytes, false);
    const shown = this.#bytes.subarray(at, at + Math.min(bytes, HEX_BYTES_MAX));
    return shown.toHex() + (bytes > HEX_BYTES_MAX ? "…" : "");
  }

  #number(at: number, bytes: number, unsigned: boolean): number | string {
    const view = this.#view;
    switch (bytes) {
      case 1:
        return unsigned ? view.getUint8(at) : view.getInt8(at);
      case 2:
        return unsigned ? view.getUint16(at) : view.getInt16(at);
      case 4:
        return unsigned ? view.getUint32(at) : view.getInt32(at);
      default: {
        const value = unsigned ? view.getBigUint64(at) : view.getBigInt64(at);
        const number = Number(value);
        return Number.isSafeInteger(number) ? number : String(value);
      }
    }
  }

  #u8(at: number): number {
    const byte = this.#bytes[at];
    if (byte === undefined) throw mismatch("it ends early");
    return byte;
  }
}

function list(value: unknown): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw mismatch("it has something else where a list must be");
  return value;
}

function object(value: unknown): Json {
  if (typeof value !== "object" || value === null) throw mismatch("it lacks a description");
  return value as Json;
}

function text(value: unknown): string {
  if (typeof value !== "string") throw mismatch("it lacks a name");
  return value;
}

function integer(value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw mismatch("it lacks a size");
  return value as number;
}

function mismatch(reason: string): DescriptionMismatch {
  return new DescriptionMismatch(`Cannot parse device: ${reason}`);
}
