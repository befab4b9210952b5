/**
 * What the thread of an analysis is started with and what it posts.
 *
 * @module
 */
import type { ErrorRecord } from "../errors.ts";
import type { Analysis } from "./analyze_file.ts";

/** A thread that analyses one file and posts an {@linkcode AnalysisReport}. */
export interface AnalyzerJob {
  readonly role: "analyzer";
  readonly path: string;
  readonly offset: number;
}

/** What an analyzer found, or why it could not. */
export interface AnalysisReport {
  readonly analysis?: Analysis | undefined;
  readonly error?: ErrorRecord | undefined;
}
