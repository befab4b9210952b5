/**
 * Intel QPL: raw deflate of single ranges by the IAA accelerator, or by its software path. Work is
 * done by jobs; on the hardware path a job is submitted and waited for, and several are in flight.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { NativeCodecError } from "./errors.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where QPL is looked for. */
export const LIBQPL: LibrarySource = {
  name: "libqpl",
  sonames: ["libqpl.so.1"],
  override: "MULTIFD_LIBQPL",
  debianPackage: "libqpl1",
};

/** `qpl_path_t`: which implementation a job is for. */
export const QplPath = { HARDWARE: 1, SOFTWARE: 2 } as const;

const qpl_op_decompress = 0;
const qpl_op_compress = 1;
const QPL_FLAG_FIRST = 0x1;
const QPL_FLAG_LAST = 0x2;
const QPL_FLAG_DYNAMIC_HUFFMAN = 0x2000;
const QPL_FLAG_OMIT_VERIFY = 0x4000;
const qpl_default_level = 1;
const QPL_STS_OK = 0;
const QPL_STS_MORE_OUTPUT_NEEDED = 2;
const QPL_STS_QUEUES_ARE_BUSY_ERR = 5;
const QPL_STS_DST_IS_SHORT_ERR = 225;

const JOB = NativeType.ptr; // qpl_job *
const STATUS = "i32"; // qpl_status, QPL_STS_OK or the reason
const SYMBOLS = {
  qpl_get_library_version: { args: [], returns: NativeType.cstring },
  qpl_get_job_size: { args: ["i32", NativeType.ptr], returns: STATUS }, // path, uint32_t *
  qpl_init_job: { args: ["i32", JOB], returns: STATUS }, // path
  qpl_execute_job: { args: [JOB], returns: STATUS },
  qpl_submit_job: { args: [JOB], returns: STATUS },
  qpl_wait_job: { args: [JOB], returns: STATUS },
  qpl_fini_job: { args: [JOB], returns: STATUS },
} as const;

type Libqpl = ReturnType<typeof open>;
type Address = Parameters<Libqpl["qpl_execute_job"]>[0];

const open = () => openLibrary(LIBQPL, SYMBOLS);
let opened: Libqpl | undefined;

function libqpl(): Libqpl {
  return (opened ??= open());
}

/*
 * qpl_job, 240 bytes in 1.9.0, behind it the library's own state (`qpl_get_job_size`):
 *
 *   0 next_in_ptr    8 available_in (u32)   12 total_in
 *  16 next_out_ptr  24 available_out (u32)  28 total_out
 *  32 op (u32)      36 flags (u32)          52 level (u32)
 */
const NEXT_IN_AT = 0;
const AVAILABLE_IN_AT = 8;
const NEXT_OUT_AT = 16;
const AVAILABLE_OUT_AT = 24;
const TOTAL_OUT_AT = 28;
const OP_AT = 32;
const FLAGS_AT = 36;
const LEVEL_AT = 52;

/** Version text of the running QPL. */
export function qplVersion(): string {
  return String(libqpl().qpl_get_library_version());
}

let hardware: boolean | undefined;

/** Whether this machine has an accelerator that QPL can use. Asks once, by opening a job. */
export function qplHasHardware(): boolean {
  try {
    if (hardware === undefined) new QplJobs(QplPath.HARDWARE, 1)[Symbol.dispose]();
    return (hardware ??= true);
  } catch (error) {
    // Without a device or without access to it; a missing library is another matter.
    if (error instanceof NativeCodecError) return (hardware = false);
    throw error;
  }
}

function unwrap(call: string, status: number): void {
  if (status !== QPL_STS_OK) throw new NativeCodecError(`${call} returned ${status}`, status);
}

/** A fixed number of jobs on one path. Each is an independent compression or decompression. */
export class QplJobs implements Disposable {
  readonly #arena: Arena;
  readonly #offsets: number[] = [];
  #open = 0;

  /** @throws {NativeCodecError} when the path cannot be used on this machine. */
  constructor(path: (typeof QplPath)[keyof typeof QplPath], count: number) {
    const size = new Arena(4);
    unwrap("qpl_get_job_size()", libqpl().qpl_get_job_size(path, size.address as Address));
    const bytes = size.u32[0] ?? 0;
    this.#arena = new Arena(count * (bytes + 64));
    // Touched now: a page fault inside the accelerator costs more than all of this.
    this.#arena.u8.fill(0);
    try {
      for (let job = 0; job < count; job++) {
        this.#offsets.push(this.#arena.reserve(bytes));
        unwrap("qpl_init_job()", libqpl().qpl_init_job(path, this.#address(job)));
        this.#open++;
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Prepares a compression to one complete stream with back-references of at most 4 KiB. */
  prepareDeflate(
    job: number,
    dynamic: boolean,
    from: number,
    bytes: number,
    to: number,
    capacity: number,
  ): void {
    const huffman = dynamic ? QPL_FLAG_DYNAMIC_HUFFMAN : 0;
    this.#prepare(job, qpl_op_compress, QPL_FLAG_OMIT_VERIFY | huffman, from, bytes, to, capacity);
    this.#set(job, LEVEL_AT, qpl_default_level);
  }

  /** Prepares the decompression of one complete stream. */
  prepareInflate(job: number, from: number, bytes: number, to: number, capacity: number): void {
    this.#prepare(job, qpl_op_decompress, 0, from, bytes, to, capacity);
  }

  /** Starts a prepared job; false when the queues of the accelerator are full. */
  submit(job: number): boolean {
    const status = libqpl().qpl_submit_job(this.#address(job));
    if (status === QPL_STS_QUEUES_ARE_BUSY_ERR) return false;
    unwrap("qpl_submit_job()", status);
    return true;
  }

  /** Waits for a submitted job: bytes of output, or 0 when the output does not fit. */
  wait(job: number): number {
    return this.#result(job, "qpl_wait_job()", libqpl().qpl_wait_job(this.#address(job)));
  }

  /** Does a prepared job here and now: bytes of output, or 0 when the output does not fit. */
  execute(job: number): number {
    return this.#result(job, "qpl_execute_job()", libqpl().qpl_execute_job(this.#address(job)));
  }

  #result(job: number, call: string, status: number): number {
    if (status === QPL_STS_MORE_OUTPUT_NEEDED || status === QPL_STS_DST_IS_SHORT_ERR) return 0;
    unwrap(call, status);
    return this.#arena.u32[((this.#offsets[job] ?? 0) + TOTAL_OUT_AT) >>> 2] ?? 0;
  }

  #prepare(
    job: number,
    operation: number,
    flags: number,
    from: number,
    bytes: number,
    to: number,
    capacity: number,
  ): void {
    const at = this.#offsets[job] ?? 0;
    this.#arena.setPointer(at + NEXT_IN_AT, from);
    this.#arena.setPointer(at + NEXT_OUT_AT, to);
    this.#set(job, AVAILABLE_IN_AT, bytes);
    this.#set(job, AVAILABLE_OUT_AT, capacity);
    this.#set(job, OP_AT, operation);
    this.#set(job, FLAGS_AT, QPL_FLAG_FIRST | QPL_FLAG_LAST | flags);
  }

  #set(job: number, field: number, value: number): void {
    this.#arena.u32[((this.#offsets[job] ?? 0) + field) >>> 2] = value;
  }

  #address(job: number): Address {
    if (job >= this.#offsets.length) throw new TypeError(`Cannot use QPL job ${job}: not there`);
    return (this.#arena.address + (this.#offsets[job] ?? 0)) as unknown as Address;
  }

  /** Frees what the jobs hold; none may be in flight. */
  [Symbol.dispose](): void {
    for (let job = 0; job < this.#open; job++) libqpl().qpl_fini_job(this.#address(job));
    this.#open = 0;
    this.#offsets.length = 0;
  }
}
