/**
 * The thread that reads and checks a recording for a caller on the event loop.
 *
 * @module
 */
import { duplicateDescriptor, OpenedFile } from "../storage/opened_file.ts";
import { giveAnswer } from "../thread/one_answer.ts";
import type { RecordingJob } from "./recording_messages.ts";
import { readRecording } from "./recording_reader.ts";

/** Reads one recording. */
export function runRecordingReader({ path, fd, service }: RecordingJob): Promise<void> {
  return giveAnswer(
    service,
    path,
    () => {
      using file = new OpenedFile(path, duplicateDescriptor(path, fd));
      return readRecording(file);
    },
    ({ state }) => [state.early, state.devices],
  );
}
