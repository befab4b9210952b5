/**
 * Reads the main migration stream as a destination does (main channel description, sections 1 to 8)
 * and tells a handler what it says. The stream is hostile: every length is checked against a limit
 * before it is used, every name and address before the handler sees it.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import { CAPABILITIES_MAX, DESCRIPTION_BYTES_MAX, MACHINE_NAME_BYTES_MAX } from "../limits.ts";
import type { ByteReader } from "./byte_reader.ts";
import {
  Command,
  ConfigurationName,
  RAM_SECTION,
  Section,
  STREAM_MAGIC,
  STREAM_VERSION,
  type SectionHeader,
  type StreamConfiguration,
} from "./main_stream.ts";
import { RamSectionReader, type RamHandler } from "./ram_section_reader.ts";
import { UUID_BYTES } from "./uuid.ts";

/** What a destination does with a stream; every call is made in stream order. */
export interface MainStreamHandler extends RamHandler {
  configuration(configuration: StreamConfiguration): void;
  openReturnPath(): void;
  ping(value: number): void;
  switchoverStart(): void;
  /** The source goes on after the migration. @returns false where this destination does not. */
  goesOn?(): boolean;
  /**
   * A section of another device. The handler must read exactly the section's data from `reader`.
   *
   * @returns false when the device is not known; the stream cannot be read on then.
   */
  fullSection(header: SectionHeader, reader: ByteReader): boolean;
  /** A section or command begins; the byte of its type is the last one that was read. */
  element?(type: number): void;
  /** The RAM section begins, under this number. */
  ramSection?(sectionId: number): void;
  /**
   * Takes everything after the RAM's last section, unparsed, to the end of the stream. Absent: it is
   * read section by section.
   */
  takeRest?: ((reader: ByteReader) => void) | undefined;
}

/** See the module comment. */
export class MainStreamReader {
  readonly #reader: ByteReader;
  readonly #handler: MainStreamHandler;
  readonly #ram: RamSectionReader;
  #ramSectionId: number | undefined;
  #ramEnded = false;

  constructor(reader: ByteReader, handler: MainStreamHandler, pageSize: number) {
    this.#reader = reader;
    this.#handler = handler;
    this.#ram = new RamSectionReader(reader, handler, pageSize);
  }

  /**
   * Reads header and configuration, then sections until the end mark, then the description if the
   * stream has one.
   *
   * @throws {StreamError} at the first byte that breaks the format.
   */
  readAll(): void {
    let type = this.readHeader();
    for (; type !== Section.EOF; type = this.#sectionType()) {
      this.#section(type);
      if (this.#ramEnded && this.#handler.takeRest !== undefined) {
        return this.#handler.takeRest(this.#reader);
      }
    }
    // Else a stream without RAM would count as a migration that has arrived.
    if (!this.#ramEnded) throw streamError("SECTION", "it ends before the END section of RAM");
    this.#description();
  }

  /**
   * Reads the RAM of a checkpoint: sections up to an end mark, without header and description
   * (section 11). Comes after `readAll()`, on the same connection.
   *
   * @throws {StreamError} at the first byte that breaks the format.
   */
  readCheckpoint(): void {
    this.#ramEnded = false;
    for (let type = this.#sectionType(); type !== Section.EOF; type = this.#sectionType()) {
      this.#section(type);
    }
    if (!this.#ramEnded) throw streamError("SECTION", "it ends before the END section of RAM");
  }

  /** Between sections a source may take its time: for its next round, or to save its devices. */
  #sectionType(): number {
    this.#reader.awaitNext();
    return this.#reader.u8();
  }

  /** Reads header and configuration; returns the type byte of the section that follows. */
  readHeader(): number {
    const reader = this.#reader;
    const magic = reader.u32();
    if (magic !== STREAM_MAGIC) {
      throw streamError("MAGIC", `magic is 0x${magic.toString(16)}, must be 0x5145564d`);
    }
    const version = reader.u32();
    if (version !== STREAM_VERSION) {
      throw streamError("VERSION", `version is ${version}, must be ${STREAM_VERSION}`);
    }
    const type = reader.u8();
    if (type !== Section.CONFIGURATION) {
      throw streamError("CONFIGURATION", `section type is ${type}, must be a configuration`);
    }
    return this.#configuration();
  }

  #configuration(): number {
    const reader = this.#reader;
    const length = reader.u32();
    if (length > MACHINE_NAME_BYTES_MAX) {
      throw streamError(
        "MACHINE",
        `machine name has ${length} bytes, at most ${MACHINE_NAME_BYTES_MAX} are allowed`,
      );
    }
    const machine = reader.text(length);
    let pageBits: number | undefined;
    let uuid: Uint8Array | undefined;
    const capabilities: string[] = [];
    const seen = new Set<string>();
    let type = reader.u8();
    for (; type === Section.SUBSECTION; type = reader.u8()) {
      const name = reader.countedString();
      // Else a list could grow for as long as the peer likes to repeat it.
      if (seen.has(name)) throw streamError("CONFIGURATION", `${name} comes twice, must be once`);
      seen.add(name);
      const version = reader.u32();
      if (version !== 1) throw streamError("CONFIGURATION", `${name} has version ${version}`);
      if (name === ConfigurationName.PAGE_BITS) pageBits = reader.u32();
      else if (name === ConfigurationName.UUID) uuid = reader.bytes(UUID_BYTES);
      else if (name === ConfigurationName.CAPABILITIES) {
        const count = reader.u32();
        if (count > CAPABILITIES_MAX) {
          throw streamError("CAPABILITIES", `${count} capabilities, at most ${CAPABILITIES_MAX}`);
        }
        for (let index = 0; index < count; index++) capabilities.push(reader.countedString());
      } else throw streamError("CONFIGURATION", `unknown subsection ${JSON.stringify(name)}`);
    }
    this.#handler.configuration({ machine, pageBits, capabilities, uuid });
    return type;
  }

  #section(type: number): void {
    const reader = this.#reader;
    this.#handler.element?.(type);
    switch (type) {
      case Section.COMMAND:
        return this.#command();
      case Section.START:
      case Section.FULL: {
        const sectionId = reader.u32();
        const idstr = reader.countedString();
        const header = { sectionId, idstr, instanceId: reader.u32(), version: reader.u32() };
        if (idstr === RAM_SECTION.idstr && type === Section.START) this.#startRam(header);
        else if (type !== Section.FULL || !this.#handler.fullSection(header, reader)) {
          throw streamError(
            "SECTION",
            `section ${JSON.stringify(idstr)} belongs to no device known here`,
          );
        }
        return this.#footer(sectionId);
      }
      case Section.PART:
      case Section.END: {
        const sectionId = reader.u32();
        if (sectionId !== this.#ramSectionId) {
          throw streamError("SECTION", `section id ${sectionId} was never started`);
        }
        // Its pages and sync points are complete then, and so is what was checked about them.
        if (this.#ramEnded) throw streamError("SECTION", "RAM goes on behind its END section");
        this.#ram.read(type === Section.END ? "end" : "part");
        if (type === Section.END) this.#ramEnded = true;
        return this.#footer(sectionId);
      }
      default:
        throw streamError("SECTION", `section type is ${type}`);
    }
  }

  #startRam(header: SectionHeader): void {
    if (this.#ramSectionId !== undefined) throw streamError("SECTION", "RAM was started twice");
    if (header.version > RAM_SECTION.version || header.instanceId !== RAM_SECTION.instanceId) {
      throw streamError(
        "SECTION",
        `RAM has version ${header.version} and instance ${header.instanceId}, must be at most ${RAM_SECTION.version} and 0`,
      );
    }
    this.#ramSectionId = header.sectionId;
    this.#handler.ramSection?.(header.sectionId);
    this.#ram.read("start");
  }

  #command(): void {
    const reader = this.#reader;
    const command = reader.u16();
    const length = reader.u16();
    if (command === Command.POSTCOPY_ADVISE) throw advised(length);
    const expected = command === Command.PING ? 4 : 0;
    if (length !== expected) {
      throw streamError("COMMAND", `command ${command} has ${length} bytes, must be ${expected}`);
    }
    switch (command) {
      case Command.OPEN_RETURN_PATH:
        return this.#handler.openReturnPath();
      case Command.PING:
        return this.#handler.ping(reader.u32());
      case Command.SWITCHOVER_START:
        return this.#handler.switchoverStart();
      case Command.ENABLE_COLO:
        if (this.#handler.goesOn?.()) return;
        throw streamError("COMMAND", "the source is a COLO primary, this is no secondary");
      default:
        throw streamError("COMMAND", `command ${command} is not known`);
    }
  }

  #footer(sectionId: number): void {
    const type = this.#reader.u8();
    if (type !== Section.FOOTER) {
      throw streamError("FOOTER", `section ${sectionId} ends with ${type}, must be a footer`);
    }
    const id = this.#reader.u32();
    if (id !== sectionId) {
      throw streamError("FOOTER", `footer names section ${id}, must be ${sectionId}`);
    }
  }

  #description(): void {
    const reader = this.#reader;
    // Some machines send none; without a return path the stream then simply ends here.
    if (reader.atEnd()) return;
    const type = reader.u8();
    if (type !== Section.VM_DESCRIPTION) {
      throw streamError("DESCRIPTION", `section type is ${type}, must be a VM description`);
    }
    const length = reader.u32();
    if (length > DESCRIPTION_BYTES_MAX) {
      throw streamError(
        "DESCRIPTION",
        `it has ${length} bytes, at most ${DESCRIPTION_BYTES_MAX} are allowed`,
      );
    }
    reader.bytes(length);
  }
}

/** What the source has switched on, by the length of its advice (section 5). */
function advised(length: number): StreamError {
  switch (length) {
    case 0:
      return streamError(
        "CAPABILITIES",
        "dirty-bitmaps on, must be off: bitmaps of disks are not taken here",
      );
    case 16:
      return streamError(
        "CAPABILITIES",
        "postcopy-ram on, must be off: all memory has to come before the guest goes on " +
          "(libvirt: migrate without --postcopy)",
      );
    default:
      return streamError("COMMAND", `command 3 has ${length} bytes, must be 0 or 16`);
  }
}

/** An error about a part of the main stream. */
function streamError(part: string, reason: string): StreamError {
  return new StreamError(`ERR_MULTIFD_STREAM_${part}`, `Cannot read main stream: ${reason}`);
}
