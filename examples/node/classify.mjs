// Classify two texts from Node: npm install @grpc/grpc-js @grpc/proto-loader, then node classify.mjs MODEL
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const proto = new URL("../../protos/sentiment.proto", import.meta.url).pathname;
const { sentiment } = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true }));
const client = new sentiment.v1.SentimentService("127.0.0.1:8001", grpc.credentials.createInsecure());

const request = { model: process.argv[2] ?? "keras-bigru", texts: ["A film to remember.", "Dull."] };
client.Classify(request, { deadline: Date.now() + 10_000 }, (error, response) => {
  if (error) throw error;
  for (const { prediction, error: rowError } of response.results) {
    console.log(prediction ? `${prediction.label} ${Math.max(...prediction.probabilities).toFixed(3)}` : rowError.message);
  }
  client.close();
});
