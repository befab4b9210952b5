/**
 * What every contender of the benchmark is given and gives back, so that the runner can treat this
 * library, QEMU and the naive script alike.
 *
 * @module
 */

import type { Compression, CompressionMethod, EngineName, TlsOptions } from "../mod.ts";

/** The methods that others than this library have. */
export const COMPARABLE_METHODS: readonly CompressionMethod[] = ["none", "zlib", "zstd"];

/** A codec as the settings of a benchmark say it. */
interface CodecSettings {
  readonly compression: CompressionMethod;
  readonly level: number;
  /** Library that this library compresses with; undefined for its own choice. */
  readonly engine?: EngineName | undefined;
}

/** The same for the library, which refuses a level where there is none. */
export function compressionOf({ compression: method, level, engine }: CodecSettings): Compression {
  return method === "zlib" || method === "zstd" ? { method, level, engine } : { method, engine };
}

/** Folders of credentials, one of each side. */
export interface TlsFolders {
  readonly kind: "x509" | "psk";
  readonly sender: string;
  readonly receiver: string;
}

/** What a side of this library is told of them. */
export function tlsOf(
  tls: TlsFolders | undefined,
  side: "sender" | "receiver",
): TlsOptions | undefined {
  return tls === undefined ? undefined : { kind: tls.kind, dir: tls[side] };
}

/** One transfer of one image. */
export interface TransferOptions extends CodecSettings {
  /** Raw RAM, as a file. */
  readonly image: string;
  readonly imageBytes: number;
  /** Multifd channels; the naive script has one connection whatever this says. */
  readonly channels: number;
  /** Undefined: not encrypted. */
  readonly tls?: TlsFolders | undefined;
  /** Also digest what arrived, outside the clock. */
  readonly verify: boolean;
}

/** One side's memory, in bytes. */
export interface SideMemory {
  /** Most that was resident at once, the guest's RAM included. */
  readonly peakRssBytes: number;
  /** Of that, what is neither the RAM nor there before the transfer was set up. */
  readonly extraBytes: number;
}

/** What one transfer took. */
export interface TransferRun {
  /** From the first send on connected channels to the confirmation; QEMU: its total-time. */
  readonly seconds: number;
  /** Connecting and starting channels, where it is not within `seconds`. */
  readonly setUpSeconds: number;
  /** CPU seconds of both sides for listening and connecting, where they can be told apart. */
  readonly setUpCpuSeconds: number;
  /** From before the set-up to the confirmation. */
  readonly cpuSecondsSender: number;
  readonly cpuSecondsReceiver: number;
  /** All bytes on all connections. */
  readonly wireBytes: number;
  readonly memorySender: SideMemory;
  readonly memoryReceiver: SideMemory;
  /** Whether the machine did something else as well. */
  readonly noisy: boolean;
  /** SHA-256 of what arrived, in hex, if it was asked for. */
  readonly sha256?: string | undefined;
}

/** What one save or restore of a snapshot took. */
export interface SnapshotRun {
  /** With threads ready and the file open; QEMU: everything. */
  readonly seconds: number;
  /** Opening and closing the file, where it is not within `seconds`. */
  readonly setUpSeconds: number;
  readonly cpuSeconds: number;
  /** Resident beyond the RAM and what was there before. */
  readonly extraBytes: number;
  /** Waiting for the device after a save. */
  readonly syncSeconds?: number | undefined;
  /** Whether the machine did something else as well. */
  readonly noisy: boolean;
}

/** Makes one transfer, in processes of its own that have ended when it settles. */
export type Contender = (options: TransferOptions) => Promise<TransferRun>;
