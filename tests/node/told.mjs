// What an error of the SDK's says of itself; any other error is thrown on.
import OpenAI from "openai";

export const told = (error) => {
  if (!(error instanceof OpenAI.APIError)) throw error;
  const { status, code, type, param } = error;
  const message = error.error?.message ?? error.message;
  return { name: error.constructor.name, status, code, type, param, message };
};
