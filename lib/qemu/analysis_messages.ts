/**
 * What the thread of an analysis is started with.
 *
 * @module
 */
/** A thread that analyses one file and posts an `Analysis`. */
export interface AnalyzerJob {
  readonly role: "analyzer";
  readonly path: string;
  readonly offset: number;
}
