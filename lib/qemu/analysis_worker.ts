/**
 * The thread that analyses a file for a caller on the event loop.
 *
 * @module
 */
import { giveAnswer } from "../thread/one_answer.ts";
import { analyzeFile } from "./analyze_file.ts";
import type { AnalyzerJob } from "./analysis_messages.ts";

/** Analyses one file. */
export function runAnalyzer({ path, offset, service }: AnalyzerJob): Promise<void> {
  return giveAnswer(service, path, () => analyzeFile(path, offset));
}
