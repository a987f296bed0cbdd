console.log(TIDEOVER_VERSION);
declare const TIDEOVER_VERSION: string;
