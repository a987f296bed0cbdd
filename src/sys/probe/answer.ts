/** What a probe answers. */
export interface Answer {
  readonly answer: 'yes' | 'no' | 'partly' | 'unknown';
  /** What was tried and what the kernel answered. */
  readonly reason: string;
  /** How to get it; only where it is not there. */
  readonly remedy?: string;
}

export function yes(reason: string): Answer {
  return { answer: 'yes', reason };
}

export function no(reason: string, remedy: string): Answer {
  return { answer: 'no', reason, remedy };
}

export function partly(reason: string, remedy: string): Answer {
  return { answer: 'partly', reason, remedy };
}

/** The probe could not look. */
export function unknown(reason: string, remedy: string): Answer {
  return { answer: 'unknown', reason, remedy };
}
