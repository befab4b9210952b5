/**
 * The thread that analyses a file for a caller on the event loop.
 *
 * @module
 */
import { postAnswer } from "../session/one_answer.ts";
import { analyzeFile } from "./analyze_file.ts";
import type { AnalyzerJob } from "./analysis_messages.ts";

/** Analyses one file and posts the result. */
export function runAnalyzer({ path, offset }: AnalyzerJob): void {
  postAnswer(path, () => analyzeFile(path, offset));
}
