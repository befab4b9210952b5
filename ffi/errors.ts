/**
 * The errors that start below the library: a shared library that is not there, and a native call
 * that failed. They live here because `ffi/` must not import from `lib/`; `lib/errors.ts` builds
 * every other error on the same base.
 *
 * @module
 */

/** Where a failure happened; every part is optional because not every failure has it. */
export interface ErrorContext {
  /** Which end failed. */
  side?: "source" | "destination" | undefined;
  /** Zero-based multifd channel; absent for the main connection. */
  channel?: number | undefined;
  /** What the session was doing, for example `connect`, `setup`, `transfer`, `complete`. */
  phase?: string | undefined;
  /** Kernel error name, for example `ECONNRESET`. */
  errno?: string | undefined;
  /** Address of the other end as text. */
  peer?: string | undefined;
  /** The failure behind this one; its message is not repeated in this one. */
  cause?: unknown;
}

/** Base of every error a peer, a codec, the kernel or a missing library can cause. */
export class MultifdError extends Error {
  /** Stable, machine-readable name of the failure, `ERR_MULTIFD_…`. */
  readonly code: string;
  /** Which end failed. */
  readonly side: "source" | "destination" | undefined;
  /** Zero-based multifd channel; undefined for the main connection and for local failures. */
  readonly channel: number | undefined;
  /** What the session was doing. */
  readonly phase: string | undefined;
  /** Kernel error name. */
  readonly errno: string | undefined;
  /** Address of the other end. */
  readonly peer: string | undefined;

  constructor(code: string, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause });
    this.name = new.target.name;
    this.code = code;
    this.side = context.side;
    this.channel = context.channel;
    this.phase = context.phase;
    this.errno = context.errno;
    this.peer = context.peer;
  }
}

/** No candidate of a system library could be opened; the message names all of them. */
export class MissingLibraryError extends MultifdError {
  constructor(message: string, context: ErrorContext = {}) {
    super("ERR_MULTIFD_LIBRARY", message, context);
  }
}

/** A system call failed; `errno` holds the kernel's name for the reason. */
export class SystemError extends MultifdError {
  constructor(message: string, context: ErrorContext = {}) {
    super("ERR_MULTIFD_SYSTEM", message, context);
  }
}

/** A codec library refused its input or could not work; `status` is the library's own code. */
export class NativeCodecError extends MultifdError {
  /** Status as returned by the library. */
  readonly status: number;

  constructor(message: string, status: number) {
    super("ERR_MULTIFD_CODEC", message);
    this.status = status;
  }
}
