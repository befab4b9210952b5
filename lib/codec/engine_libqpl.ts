/**
 * Engine libqpl: Intel's accelerator IAA, or the software path of the same library where there is
 * none. On the accelerator all pages of a packet are in flight at once.
 *
 * @module
 */
import { NativeCodecError } from "../../ffi/errors.ts";
import { LIBQPL, qplHasHardware, QplJobs, QplPath, qplVersion } from "../../ffi/libqpl.ts";
import { PACKET_PAGES_MAX } from "../limits.ts";
import type { Engine, PageCompressor, PageDecompressor } from "./engine.ts";

/** How often a page is offered to a full queue before the processor does it; as QEMU does. */
const SUBMISSIONS_MAX = 4;

/** From this level on QPL builds a Huffman table for each page instead of the fixed one. */
const DYNAMIC_LEVEL = 2;

const IN_FLIGHT = -1;

/** What both directions share: the jobs, and who does which page. */
abstract class QplPages implements Disposable {
  readonly #software = new QplJobs(QplPath.SOFTWARE, 1);
  readonly #hardware = qplHasHardware() ? new QplJobs(QplPath.HARDWARE, PACKET_PAGES_MAX) : null;
  /** Result of each page, or IN_FLIGHT while the accelerator has it. */
  protected readonly lengths = new Int32Array(PACKET_PAGES_MAX);

  submit(index: number, from: number, bytes: number, to: number, capacity: number): void {
    const hardware = this.#hardware;
    if (hardware !== null) {
      this.prepare(hardware, index, from, bytes, to, capacity);
      for (let attempt = 0; attempt < SUBMISSIONS_MAX; attempt++) {
        if (hardware.submit(index)) {
          this.lengths[index] = IN_FLIGHT;
          return;
        }
      }
      // The queue is full: while the processor does this page, the accelerator makes room.
    }
    this.prepare(this.#software, 0, from, bytes, to, capacity);
    this.lengths[index] = this.#software.execute(0);
  }

  collect(index: number): number {
    if (this.lengths[index] === IN_FLIGHT && this.#hardware !== null) {
      this.lengths[index] = 0; // never waited for twice, whatever comes out of it
      this.lengths[index] = this.#hardware.wait(index);
    }
    return this.lengths[index];
  }

  protected abstract prepare(
    jobs: QplJobs,
    job: number,
    from: number,
    bytes: number,
    to: number,
    capacity: number,
  ): void;

  [Symbol.dispose](): void {
    // After a failure pages may still be in flight, to memory that is about to go.
    for (const [index, length] of this.lengths.entries()) {
      if (length !== IN_FLIGHT) continue;
      try {
        this.collect(index);
      } catch {
        // Only its end matters now.
      }
    }
    this.#hardware?.[Symbol.dispose]();
    this.#software[Symbol.dispose]();
  }
}

class QplPageCompressor extends QplPages implements PageCompressor {
  readonly #dynamic: boolean;

  constructor(level: number) {
    super();
    this.#dynamic = level >= DYNAMIC_LEVEL;
  }

  override submit(index: number, from: number, bytes: number, to: number, capacity: number): void {
    try {
      super.submit(index, from, bytes, to, capacity);
    } catch (error) {
      if (!(error instanceof NativeCodecError)) throw error;
      this.lengths[index] = 0;
    }
  }

  override collect(index: number): number {
    try {
      return super.collect(index);
    } catch (error) {
      // A page that cannot be done travels raw, as it does from QEMU.
      if (!(error instanceof NativeCodecError)) throw error;
      return 0;
    }
  }

  protected prepare(
    jobs: QplJobs,
    job: number,
    from: number,
    bytes: number,
    to: number,
    capacity: number,
  ): void {
    jobs.prepareDeflate(job, this.#dynamic, from, bytes, to, capacity);
  }
}

class QplPageDecompressor extends QplPages implements PageDecompressor {
  protected prepare(
    jobs: QplJobs,
    job: number,
    from: number,
    bytes: number,
    to: number,
    capacity: number,
  ): void {
    jobs.prepareInflate(job, from, bytes, to, capacity);
  }
}

/** See the module comment. */
export const LIBQPL_ENGINE: Engine = {
  source: LIBQPL,
  version: qplVersion,
  accelerated: qplHasHardware,
  deflatePages: {
    levelSteps: [1, DYNAMIC_LEVEL],
    compressor: (level) => new QplPageCompressor(level),
    decompressor: () => new QplPageDecompressor(),
  },
};
