/**
 * Blocks whose pages come in when they are touched, or behind that in the order of the snapshot.
 *
 * A thread of its own serves whoever touches a page, so any thread may, native code included; others
 * fill. The threads end when all pages are there, and with the blocks.
 *
 * @module
 */
import { mmap, mprotect, munmap, unwrap } from "../../ffi/libc.ts";
import { MemoryMap } from "../../ffi/linux.ts";
import {
  FaultMode,
  kernelPageBytes,
  openUserfaultfd,
  type Userfaultfd,
} from "../../ffi/userfaultfd.ts";
import { LimitError, MultifdError, TimeoutError } from "../errors.ts";
import {
  CHANNELS_MAX,
  FAULT_SERVER_START_MS,
  JOIN_LIMIT_MS,
  RECEIVE_BYTES_DEFAULT,
} from "../limits.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { filledRamBlock, type RamBlock } from "../memory/ram_block.ts";
import { Residency } from "../memory/residency.ts";
import type { OptionNames } from "../option_names.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { Thread } from "../thread/thread.ts";
import { WorkerGroup } from "../thread/worker_group.ts";
import type { AttachedTask, AttachedWork } from "./attached_messages.ts";
import { firstPagesOf, type FirstPages } from "./first_pages.ts";
import { newPageRange } from "./page_range.ts";

/** How blocks are attached. */
export interface AttachOptions {
  /** Names of the blocks. Default: all that are in the snapshot. */
  readonly blocks?: readonly string[] | undefined;
  /** Whether the memory may be written to; the snapshot never changes. Default true. */
  readonly writable?: boolean | undefined;
  /**
   * Threads that bring in what nobody has touched yet, 0 to 255. Default 1. With 0 the rest comes in
   * only once somebody waits for `resident()`.
   */
  readonly channels?: number | undefined;
  /**
   * What comes in before all else, as `readPageOrder()` gives it; of blocks that are not attached it
   * may say what it likes. Default: the order of the file.
   */
  readonly order?: FirstPages | undefined;
  /** Most bytes of memory. Default 64 GiB. */
  readonly ramBytesMax?: number | undefined;
  /** Is told when the kernel refuses, and the blocks are loaded instead. */
  readonly onNotice?: ((notice: string) => void) | undefined;
}

/** Names of {@linkcode AttachOptions}. */
export const ATTACH_OPTIONS = {
  blocks: true,
  writable: true,
  channels: true,
  order: true,
  ramBytesMax: true,
  onNotice: true,
} satisfies OptionNames<AttachOptions>;

const NO_ORDER: FirstPages = { blocks: [], runs: new Uint32Array() };

/** A block whose pages are brought in. */
export interface PagedBlock {
  readonly idstr: string;
  readonly bytes: number;
  readonly pageSize: number;
  /** Bits of the pages that have content; all others are zero. */
  readonly present: PageBitmap;
}

/** A file that is open. */
export interface PagedFile extends Disposable {
  readonly path: string;
  readonly fd: number;
  /** The same open file, which outlives this object. */
  duplicate(): PagedFile;
}

/** Blocks of a snapshot, and where their pages are. */
export interface PagedBlocks {
  /** Its file; stays the caller's. */
  readonly file: PagedFile;
  readonly blocks: readonly PagedBlock[];
  /** The role of its threads, and where they find the pages in the file that is given. */
  source(this: void, file: PagedFile): { readonly role: string };
}

/** Counters of an attachment. */
export interface AttachStatistics {
  /** Pages with content that are not in place yet. */
  readonly pagesLeft: number;
  /** Faults that were served. */
  readonly faults: number;
  /** Bytes that came in because they were touched, with what is around them. */
  readonly faultedBytes: number;
}

interface MappedBlock {
  readonly address: number;
  readonly bytes: number;
  readonly residency: Residency;
  isReleased: boolean;
  isMapped: boolean;
}

let attach: (snapshot: PagedBlocks, options: AttachOptions) => Promise<AttachedRam>; // the class's own

/**
 * Attaches the blocks of a snapshot; see `Snapshot.attach()`.
 *
 * @throws {SystemError} when there is not so much memory.
 */
export function attachBlocks(snapshot: PagedBlocks, options: AttachOptions): Promise<AttachedRam> {
  return attach(snapshot, options);
}

/**
 * Blocks whose pages come in when they are touched. Made by `attach()` of a snapshot or recording.
 *
 * A page that cannot be read is an error of `resident()`. A thread that touches it nevertheless ends
 * the process by a signal, behind a line on stderr that says why: it would have to read zeros
 * otherwise, or to wait for ever.
 *
 * @example
 * ```ts
 * using snapshot = await openSnapshot("heap.snap");
 * await using attached = await snapshot.attach();
 * const [heap] = attached.blocks;
 * console.log(heap.view(0, 4096)[0]); // read from the file now
 * await heap.resident(); // all of it is there
 * ```
 */
export class AttachedRam implements AsyncDisposable {
  /** The blocks, in the order in which they were asked for. */
  readonly blocks: readonly RamBlock[];
  /**
   * Whether system calls on pages that are not there wait for them. Otherwise they fail with EFAULT:
   * touch such pages first, or wait for `resident()`. This library does so itself.
   */
  readonly systemCallsWait: boolean;
  readonly #file: PagedFile;
  readonly #control = new SessionControl();
  readonly #group = new WorkerGroup(this.#control);
  readonly #userfaultfd: Userfaultfd | undefined;
  readonly #memory: MappedBlock[] = [];
  readonly #counts = new SharedArrayBuffer(16);
  readonly #ended = Promise.withResolvers<void>();
  #threads = 0;
  #isClosed = false;

  private constructor(
    snapshot: PagedBlocks,
    options: AttachOptions,
    support: ReturnType<typeof openUserfaultfd>,
  ) {
    this.#userfaultfd = support.userfaultfd;
    this.systemCallsWait = support.scope !== "user";
    this.#file = snapshot.file.duplicate();
    try {
      this.blocks = snapshot.blocks.map((block) => this.#map(block, options.writable ?? true));
    } catch (error) {
      for (const memory of this.#memory) memory.isReleased = true;
      this.#settle();
      throw error;
    }
  }

  static async #attach(snapshot: PagedBlocks, options: AttachOptions): Promise<AttachedRam> {
    const { channels = 1, ramBytesMax = RECEIVE_BYTES_DEFAULT, writable = true } = options;
    const action = `Cannot attach ${snapshot.file.path}`;
    if (!Number.isInteger(channels) || channels < 0 || channels > CHANNELS_MAX) {
      throw new RangeError(`${action}: ${channels} channels, must be 0 to ${CHANNELS_MAX}`);
    }
    const bytes = snapshot.blocks.reduce((sum, block) => sum + block.bytes, 0);
    if (bytes > ramBytesMax) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_RAM",
        `${action}: it has ${bytes} bytes of RAM, at most ${ramBytesMax} are allowed`,
      );
    }
    const attached = new AttachedRam(snapshot, options, supportFor(snapshot));
    try {
      await attached.#start(snapshot, action, channels, options);
      if (!writable) attached.#protect(action);
      return attached;
    } catch (error) {
      await attached[Symbol.asyncDispose]();
      throw error;
    }
  }

  static {
    attach = (snapshot, options) => AttachedRam.#attach(snapshot, options);
  }

  /** What has been done so far. */
  statistics(): AttachStatistics {
    const [faults = 0, faultedBytes = 0] = new Float64Array(this.#counts);
    const pagesLeft = this.#memory.reduce((sum, { residency }) => sum + residency.pagesLeft, 0);
    return { pagesLeft, faults, faultedBytes };
  }

  /**
   * Has all pages of all blocks brought in, and waits for them.
   *
   * @throws {MultifdError} when some cannot be.
   */
  async resident(): Promise<void> {
    await Promise.all(this.#memory.map(({ residency }) => residency.resident()));
  }

  /**
   * Disposes the blocks and waits until the threads have ended; whoever holds a block keeps both.
   * Nobody may be touching their memory. Safe to call twice.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const block of this.blocks) block[Symbol.dispose]();
    if (this.#memory.some(({ isReleased }) => !isReleased)) return;
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, JOIN_LIMIT_MS);
    await Promise.race([this.#ended.promise, late]);
    clearTimeout(timer);
  }

  #map({ idstr, bytes, pageSize, present }: PagedBlock, writable: boolean): RamBlock {
    const action = `Cannot attach RAM block ${idstr}`;
    const prot = MemoryMap.PROT_READ | MemoryMap.PROT_WRITE;
    const flags = MemoryMap.PRIVATE | MemoryMap.ANONYMOUS | MemoryMap.NORESERVE;
    const address = unwrap(action, mmap(bytes, prot, flags, -1, 0));
    const count = present.count();
    const residency = Residency.create(this.#control, count, this.systemCallsWait);
    const memory = { address, bytes, residency, isReleased: false, isMapped: true };
    this.#memory.push(memory);
    if (count === 0) residency.markResident();
    else if (this.#userfaultfd !== undefined) {
      unwrap(action, this.#userfaultfd.register(address, bytes, FaultMode.MISSING));
    }
    const release = (): void => {
      memory.isReleased = true;
      this.#settle();
    };
    return filledRamBlock(idstr, pageSize, { address, bytes, writable, residency, release });
  }

  async #start(
    snapshot: PagedBlocks,
    action: string,
    channels: number,
    { onNotice, order = NO_ORDER }: AttachOptions,
  ): Promise<void> {
    const { blocks } = snapshot;
    const source = snapshot.source(this.#file);
    const work: AttachedWork = {
      path: this.#file.path,
      ranges: blocks.map(({ idstr, bytes, pageSize, present }, block) =>
        newPageRange({
          idstr,
          address: this.#memory[block].address,
          bytes,
          unitBytes: pageSize,
          block,
          blockOffset: 0,
          pageSize,
          blockPages: present.pages,
          present: present.buffer,
        }),
      ),
      residencies: this.#memory.map(({ residency }) => residency.shared),
      first: firstPagesOf(order, blocks, action),
      cursor: new SharedArrayBuffer(4),
      counts: this.#counts,
      control: this.#control.buffer,
    };
    const userfaultfd = this.#userfaultfd?.fd ?? -1;
    const start = (task: AttachedTask["task"]): Thread => {
      const part: AttachedTask = { task, userfaultfd, hasFillers: channels > 0 };
      const thread = this.#group.start({ ...source, ...work, ...part });
      this.#threads++;
      thread.onExit(() => {
        this.#threads--;
        this.#settle();
      });
      return thread;
    };
    if (this.#isResident) return this.#settle();
    if (userfaultfd < 0) {
      const { reason } = openUserfaultfd();
      onNotice?.(
        `${action}: ${reason ?? "its pages are smaller than the kernel's"}, loaded instead`,
      );
      for (let channel = 0; channel < Math.max(1, channels); channel++) start("load");
      return this.resident();
    }
    await this.#ready(start("serve"), action);
    for (let channel = 0; channel < channels; channel++) start("fill");
  }

  /** Waits until a thread serves: nobody else would notice that it does not. */
  async #ready(thread: Thread, action: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    thread.onMessage(() => resolve());
    thread.onExit(() => reject(this.#failure()));
    const timer = setTimeout(() => {
      const limit = FAULT_SERVER_START_MS;
      const message = `${action}: the thread that serves faults did not start within ${limit} ms`;
      reject(new TimeoutError("ERR_MULTIFD_TIMEOUT_START", message));
    }, FAULT_SERVER_START_MS);
    thread.ref();
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      thread.unref();
    }
  }

  get #isResident(): boolean {
    return this.#memory.every(({ residency }) => residency.isResident);
  }

  #protect(action: string): void {
    for (const { address, bytes } of this.#memory) {
      unwrap(action, mprotect(address, bytes, MemoryMap.PROT_READ));
    }
  }

  #failure(): MultifdError {
    return (
      this.#control.error ??
      new MultifdError("ERR_MULTIFD_STOPPED", "Cannot go on: the thread that serves has ended")
    );
  }

  /** Lets go of what nobody uses any more, once no thread does. */
  #settle(): void {
    const isUnused = this.#memory.every(({ isReleased }) => isReleased);
    if (isUnused) {
      for (const { residency } of this.#memory) residency.markFailed();
      this.#control.finish();
    }
    if (this.#threads > 0) return;
    // First the memory: who still waits for a page of it must not read zeros.
    for (const memory of this.#memory) {
      if (memory.isReleased && memory.isMapped) munmap(memory.address, memory.bytes);
      if (memory.isReleased) memory.isMapped = false;
    }
    if (isUnused) this.#ended.resolve();
    if (this.#isClosed || !(isUnused || this.#isResident)) return;
    this.#isClosed = true;
    this.#userfaultfd?.[Symbol.dispose]();
    this.#file[Symbol.dispose]();
  }
}

/** What the kernel lets us have for such blocks. */
function supportFor({ blocks }: PagedBlocks): ReturnType<typeof openUserfaultfd> {
  const smallest = Math.min(...blocks.map(({ pageSize }) => pageSize));
  if (smallest % kernelPageBytes() !== 0) return { scope: undefined, reason: undefined };
  return openUserfaultfd();
}
