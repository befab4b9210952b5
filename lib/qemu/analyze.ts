/**
 * Analyses files on a thread of their own, so that the caller's event loop stays free.
 *
 * @module
 */
import { fromErrorRecord, MultifdError } from "../errors.ts";
import { SessionControl } from "../sync/session_control.ts";
import { SessionThread } from "../session/session_thread.ts";
import type { AnalysisReport, AnalyzerJob } from "./analysis_messages.ts";
import type { Analysis } from "./analyze_file.ts";

/** Options of {@linkcode analyze}. */
export interface AnalyzeOptions {
  /** Where QEMU's stream begins in the file, as in `migrate file:PATH,offset=N`. Default 0. */
  readonly offset?: number | undefined;
  /** Lets go of the analysis; its thread ends by itself. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Says what is in a recording or in a file that QEMU's `migrate file:` wrote: machine, sections,
 * devices with all their fields by the VM description, RAM blocks and their pages.
 *
 * @throws {SystemError} when the file cannot be read.
 * @throws {MultifdError} when it is neither, or damaged.
 *
 * @example
 * ```ts
 * const { machine, devices } = await analyze("vm.rec");
 * for (const { name, bytes } of devices) console.log(machine, name, bytes);
 * ```
 */
export async function analyze(path: string, options: AnalyzeOptions = {}): Promise<Analysis> {
  const { offset = 0, signal } = options;
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new RangeError(`Cannot analyze ${path}: offset ${offset}, must be 0 or more bytes`);
  }
  const control = new SessionControl();
  const thread = new SessionThread(
    { role: "analyzer", path, offset } satisfies AnalyzerJob,
    control,
    "destination",
    signal,
  );
  const answer = Promise.withResolvers<AnalysisReport>();
  const onAbort = (): void => answer.reject(thread.failure());
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  thread.onMessage((message) => answer.resolve(message as AnalysisReport));
  try {
    const { analysis, error } = await thread.during(answer.promise);
    if (analysis !== undefined) return analysis;
    throw error === undefined
      ? new MultifdError("ERR_MULTIFD_STOPPED", `Cannot analyze ${path}: no result`)
      : fromErrorRecord(error);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    if (signal?.aborted !== true) await thread.end();
  }
}
