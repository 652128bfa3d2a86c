namespace PatchUp.Functional.Laws

/// The laws of mixing.
[<RequireQualifiedAccess>]
module Laws =

    /// Every law.
    let all: Law list =
        [ KeyLaws.all
          MaskLaws.all
          HardLaws.all
          SoftLaws.all
          LabelLaws.all
          ObjectiveLaws.all
          RegularizerLaws.all
          RelationLaws.all
          NetworkLaws.all
          ReplayLaws.all
          MemoryLaws.all
          NotationLaws.all ]
        |> List.concat
