/**
 * What the thread of an analysis is started with.
 *
 * @module
 */
import type { ServiceJob } from "../thread/service.ts";

/** A thread that analyses one file and gives an `Analysis`. */
export interface AnalyzerJob extends ServiceJob {
  readonly role: "analyzer";
  readonly path: string;
  readonly offset: number;
}
