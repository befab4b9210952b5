/**
 * Numbers of the main migration stream, both directions (main channel description, sections 1 to 7).
 *
 * @module
 */

/** "QEVM", the first word of a stream. */
export const STREAM_MAGIC = 0x5145_564d;
/** The only version in use. */
export const STREAM_VERSION = 3;

/** First byte of a section (section 2). */
export const Section = {
  EOF: 0x00,
  START: 0x01,
  PART: 0x02,
  END: 0x03,
  FULL: 0x04,
  SUBSECTION: 0x05,
  VM_DESCRIPTION: 0x06,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  FOOTER: 0x7e,
} as const;

/** Commands (section 5). */
export const Command = {
  OPEN_RETURN_PATH: 1,
  PING: 2,
  POSTCOPY_ADVISE: 3,
  POSTCOPY_LISTEN: 4,
  POSTCOPY_RUN: 5,
  POSTCOPY_RAM_DISCARD: 6,
  PACKAGED: 7,
  ENABLE_COLO: 8,
  POSTCOPY_RESUME: 9,
  RECV_BITMAP: 10,
  SWITCHOVER_START: 11,
} as const;

/** Flags in the low bits of a RAM record's address (section 6). */
export const RamFlag = {
  ZERO: 0x002,
  MEM_SIZE: 0x004,
  PAGE: 0x008,
  EOS: 0x010,
  CONTINUE: 0x020,
  MULTIFD_FLUSH: 0x200,
} as const;

/** Section name, instance and version of the RAM device. */
export const RAM_SECTION = { idstr: "ram", instanceId: 0, version: 4 } as const;

/** Return-path messages (section 7). */
export const ReturnMessage = {
  SHUT: 1,
  PONG: 2,
  REQ_PAGES_ID: 3,
  REQ_PAGES: 4,
  RECV_BITMAP: 5,
  RESUME_ACK: 6,
  SWITCHOVER_ACK: 7,
  /** Of this library, far from QEMU's numbers (section 7.1). */
  FAILURE: 0x6d66,
} as const;

/** Value a source sends with its PING right after opening the return path. */
export const PING_VALUE = 1;

/**
 * The same of a source that is of this library and has no guest's state: it understands
 * `ReturnMessage.FAILURE`. A destination that does not know it just answers with it.
 */
export const PEER_PING_VALUE = 0x6d75_6c74;

/** Names of the subsections of a configuration section (section 3.1). */
export const ConfigurationName = {
  PAGE_BITS: "configuration/target-page-bits",
  CAPABILITIES: "configuration/capabilities",
  UUID: "configuration/uuid",
} as const;

/** What a configuration section says. */
export interface StreamConfiguration {
  /** Machine type, for example `pc-q35-10.0`. */
  readonly machine: string;
  /** log2 of the page size when the stream names it. */
  readonly pageBits?: number | undefined;
  /** Capabilities both sides must agree on: `mapped-ram`, `x-ignore-shared`. */
  readonly capabilities: readonly string[];
  /** 16 raw bytes when the source validates uuids. */
  readonly uuid?: Uint8Array | undefined;
}

/** Name and length of a RAM block, as the setup section announces it. */
export interface AnnouncedBlock {
  readonly idstr: string;
  /** Length in bytes. */
  readonly bytes: number;
}

/** Length of what ends a section: its mark and the section's number. */
export const FOOTER_BYTES = 5;

/** Name, instance and version of a section with a header of its own. */
export interface SectionHeader {
  readonly sectionId: number;
  readonly idstr: string;
  readonly instanceId: number;
  readonly version: number;
}
