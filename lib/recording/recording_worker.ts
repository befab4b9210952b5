/**
 * The thread that reads and checks a recording for a caller on the event loop.
 *
 * @module
 */
import { duplicateDescriptor, OpenedFile } from "../storage/opened_file.ts";
import { postAnswer } from "../session/one_answer.ts";
import type { RecordingJob } from "./recording_messages.ts";
import { readRecording } from "./recording_reader.ts";

/** Reads one recording and posts what it found. */
export function runRecordingReader({ path, fd }: RecordingJob): void {
  postAnswer(
    path,
    () => {
      using file = new OpenedFile(path, duplicateDescriptor(path, fd));
      return readRecording(file);
    },
    ({ state }) => [state.early, state.devices],
  );
}
