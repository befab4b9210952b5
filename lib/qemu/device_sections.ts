/**
 * Takes the part of a stream that is not RAM apart into sections and devices. Each section's length
 * comes from the VM description; a section that is not described, or wrongly, ends where a footer is
 * followed by something that can follow.
 *
 * @module
 */
import { LimitError, StreamError } from "../errors.ts";
import { ANALYZED_SECTIONS_MAX } from "../limits.ts";
import { FOOTER_BYTES, Section } from "../wire/main_stream.ts";
import { findSectionEnd } from "../wire/opaque_state.ts";
import type { FoundDescription } from "../wire/vm_description.ts";
import {
  DescriptionMismatch,
  FieldBudget,
  parseDevice,
  type DeviceField,
  type DeviceSubsection,
} from "./device_parser.ts";

/** A device of the guest. */
export interface AnalyzedDevice {
  /** QEMU's name, for example `0000:00:02.0/vga`. */
  readonly name: string;
  readonly instanceId: number;
  readonly version: number;
  readonly sectionId: number;
  /** Bytes of its data. */
  readonly bytes: number;
  /** Whether the VM description fits its data; otherwise only the length is known. */
  readonly described: boolean;
  readonly fields: readonly DeviceField[];
  readonly subsections: readonly DeviceSubsection[];
}

/** A piece of the stream. */
export interface AnalyzedSection {
  readonly kind:
    "configuration" | "command" | "start" | "part" | "end" | "full" | "end-mark" | "description";
  /** Offset in the stream, or in the part of it that was kept, in bytes. */
  readonly offset: number;
  readonly bytes: number;
  readonly sectionId?: number | undefined;
  readonly name?: string | undefined;
  readonly instanceId?: number | undefined;
  /** Number of a command. */
  readonly command?: number | undefined;
}

/** Takes sections apart; its entries of the description are used up in order. */
export class DeviceSections {
  readonly devices: AnalyzedDevice[] = [];
  readonly sections: AnalyzedSection[] = [];
  /** Entries of the description by device, in order; a list, for instances may repeat. */
  readonly #entries = new Map<string, Readonly<Record<string, unknown>>[]>();
  readonly #fields = new FieldBudget();

  constructor(description: FoundDescription["json"] | undefined) {
    for (const entry of (description?.devices ?? []).toReversed()) {
      if (typeof entry !== "object" || entry === null) continue;
      const { name, instance_id: instanceId } = entry as Record<string, unknown>;
      const key = entryKey(name, instanceId);
      const entries = this.#entries.get(key);
      if (entries === undefined) this.#entries.set(key, [entry as Record<string, unknown>]);
      else entries.push(entry as Record<string, unknown>);
    }
  }

  /**
   * Reads whole sections from `bytes` to the end mark, or to the end of `bytes`.
   *
   * @param base Where `bytes` lie, for the offsets reported.
   * @throws {StreamError} where nothing that can follow does.
   */
  read(bytes: Uint8Array, base: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < bytes.byteLength) {
      const start = at;
      const type = bytes[at];
      if (this.sections.length >= ANALYZED_SECTIONS_MAX) {
        throw new LimitError(
          "ERR_MULTIFD_LIMIT_SECTIONS",
          `Cannot analyze stream: more than ${ANALYZED_SECTIONS_MAX} sections, the most allowed`,
        );
      }
      if (type === Section.EOF) {
        this.sections.push({ kind: "end-mark", offset: base + at, bytes: 1 });
        at++;
        if (at < bytes.byteLength) {
          const length = bytes.byteLength - at;
          this.sections.push({ kind: "description", offset: base + at, bytes: length });
        }
        return;
      }
      if (type === Section.COMMAND && at + 5 <= bytes.byteLength) {
        at += 5 + view.getUint16(at + 3);
        const command = view.getUint16(start + 1);
        this.sections.push({ kind: "command", offset: base + start, bytes: at - start, command });
        continue;
      }
      if (type !== Section.FULL && type !== Section.END) throw unknownSection(type, base + at);
      at = this.#section(bytes, view, start, type);
      const device = this.devices.at(-1);
      this.sections.push({
        kind: type === Section.FULL ? "full" : "end",
        offset: base + start,
        bytes: at - start,
        sectionId: view.getUint32(start + 1),
        ...(type === Section.FULL ? { name: device?.name, instanceId: device?.instanceId } : {}),
      });
    }
  }

  #section(bytes: Uint8Array, view: DataView, start: number, type: number): number {
    if (start + 6 > bytes.byteLength) throw unknownSection(type, start);
    const sectionId = view.getUint32(start + 1);
    if (type === Section.END) {
      return dataEnd(bytes, start + 5, sectionId) + FOOTER_BYTES; // of an iterable device
    }
    const nameBytes = bytes[start + 5];
    const dataAt = start + 6 + nameBytes + 8;
    if (dataAt > bytes.byteLength) throw unknownSection(type, start);
    const name = new TextDecoder().decode(bytes.subarray(start + 6, start + 6 + nameBytes));
    const instanceId = view.getUint32(dataAt - 8);
    const version = view.getUint32(dataAt - 4);
    const header = { name, instanceId, version, sectionId };
    const described = this.#parse(bytes, view, dataAt, header);
    if (described !== undefined) {
      this.devices.push(described);
      return dataAt + described.bytes + FOOTER_BYTES;
    }
    const end = dataEnd(bytes, dataAt, sectionId);
    this.devices.push({
      ...header,
      bytes: end - dataAt,
      described: false,
      fields: [],
      subsections: [],
    });
    return end + FOOTER_BYTES;
  }

  /** Parses by the description; undefined when there is none or it does not lead to the footer. */
  #parse(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    header: Pick<AnalyzedDevice, "name" | "instanceId" | "version" | "sectionId">,
  ): AnalyzedDevice | undefined {
    const entry = this.#entries.get(entryKey(header.name, header.instanceId))?.pop();
    if (entry === undefined) return undefined;
    try {
      const parsed = parseDevice(bytes, at, entry, this.#fields);
      const end = at + parsed.bytes;
      const fits =
        end + FOOTER_BYTES <= bytes.byteLength &&
        bytes[end] === Section.FOOTER &&
        view.getUint32(end + 1) === header.sectionId;
      return fits ? { ...header, described: true, ...parsed } : undefined;
    } catch (error) {
      if (error instanceof DescriptionMismatch) return undefined;
      throw error;
    }
  }
}

function entryKey(name: unknown, instanceId: unknown): string {
  return typeof name === "string" && typeof instanceId === "number" ? `${instanceId} ${name}` : "";
}

function dataEnd(bytes: Uint8Array, at: number, sectionId: number): number {
  const end = findSectionEnd(bytes, at, sectionId);
  if (end !== undefined) return end;
  throw new StreamError(
    "ERR_MULTIFD_STREAM_SECTION",
    `Cannot analyze stream: section ${sectionId} has no end`,
  );
}

function unknownSection(type: number | undefined, at: number): StreamError {
  return new StreamError(
    "ERR_MULTIFD_STREAM_SECTION",
    `Cannot analyze stream: section type ${type} at byte ${at} of the device state`,
  );
}
