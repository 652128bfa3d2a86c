namespace PatchUp.Repro

open PatchUp.Functional
open TorchSharp

/// How well a network does on images that are left as they are.
type Score =
    {
        /// Wrong predictions, in percent.
        Error: float
        /// Mean negative log-likelihood of the right class, in nats.
        Nll: float
    }

/// Sums over a batch, so that batches add up. Logits are `[N,K]`, labels `[N]` class indices (int64).
[<RequireQualifiedAccess>]
module Metrics =

    let private number (sum: torch.Tensor) = sum.``to``(torch.float64).item<float>()

    /// How many predictions are wrong.
    let wrong (logits: torch.Tensor) (labels: torch.Tensor) : int =
        Scope.value (fun () -> int (number (logits.argmax(1L).ne(labels).sum())))

    /// The negative log-likelihood of the right classes, summed in float64.
    let negativeLogLikelihood (logits: torch.Tensor) (labels: torch.Tensor) : float =
        Scope.value (fun () ->
            let logs = torch.nn.functional.log_softmax (logits.``to`` (torch.float64), 1L)
            -(number (logs.gather(1L, labels.unsqueeze 1L).sum())))
