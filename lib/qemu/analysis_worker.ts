/**
 * The thread that analyses a file for a caller on the event loop.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { toErrorRecord } from "../errors.ts";
import { analyzeFile } from "./analyze_file.ts";
import type { AnalysisReport, AnalyzerJob } from "./analysis_messages.ts";

/** Analyses one file and posts the result. */
export function runAnalyzer(job: AnalyzerJob): void {
  parentPort!.postMessage(attempt(job));
}

function attempt({ path, offset }: AnalyzerJob): AnalysisReport {
  try {
    return { analysis: analyzeFile(path, offset) };
  } catch (error) {
    return { error: toErrorRecord(error, { peer: path }) };
  }
}
