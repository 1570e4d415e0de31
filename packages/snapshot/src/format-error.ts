/** Bytes that are no valid header, runs file, head or manifest, or values that can't be written as one. */
export class SnapshotFormatError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'SnapshotFormatError';
  }
}
