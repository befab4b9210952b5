/**
 * Analyses files on a thread of their own, so that the caller's event loop stays free.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { answerOf } from "../thread/one_answer.ts";
import type { Unstarted } from "../thread/service.ts";
import type { AnalyzerJob } from "./analysis_messages.ts";
import type { Analysis } from "./analyze_file.ts";

/** Options of {@linkcode analyze}. */
export interface AnalyzeOptions {
  /**
   * Where QEMU's stream begins in the file, as in `migrate file:PATH,offset=N`. Default 0, which also
   * finds the stream behind what `virsh save` puts in front.
   */
  readonly offset?: number | undefined;
  /** Lets go of the analysis; its thread ends by itself. */
  readonly signal?: AbortSignal | undefined;
}

const ANALYZE_OPTIONS = {
  offset: true,
  signal: true,
} satisfies OptionNames<AnalyzeOptions>;

/**
 * Says what is in a recording or in a file that QEMU's `migrate file:` wrote, also one that is stored
 * compressed or was saved by `virsh`: machine, sections,
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
  checkOptionNames(ANALYZE_OPTIONS, options);
  const { offset = 0, signal } = options;
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new RangeError(`Cannot analyze ${path}: offset ${offset}, must be 0 or more bytes`);
  }
  const job = { role: "analyzer", path, offset } satisfies Unstarted<AnalyzerJob>;
  return answerOf<Analysis>(job, signal);
}
