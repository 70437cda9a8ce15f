"""The text of a small compiled program, in the form of XLA's, made by hand: three loops deep."""

TOY = """HloModule jit_step, is_scheduled=true

%inner (a: f32[8,16]) -> f32[8,16] {
  %a = f32[8,16]{1,0:T(8,128)} parameter(0)
  %limit = s32[] constant(99)
  ROOT %b = f32[8,16]{1,0:T(8,128)} add(%a, %a)
}

%summed (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %z = f32[] add(%x, %y)
}

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %v = f32[8,16]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %forward.1 = f32[8,16]{1,0:T(8,128)} fusion(%v), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/jvp(while)/body/dot_general"}, backend_config={"estimated_cycles":"100"}
  %gathered = f32[32,16]{1,0} all-gather(%forward.1), replica_groups={{0,1,2,3}}, dimensions={0}, metadata={op_name="jit(step)/jvp(while)/body/dot_general"}
  ROOT %t = (s32[], f32[8,16]{1,0}) tuple(%i, %forward.1)
}

%condition (p.1: (s32[], f32[8,16])) -> pred[] {
  %p.1 = (s32[], f32[8,16]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%p.1), index=0
  %bound = s32[] constant(24)
  ROOT %less = pred[] compare(%j, %bound), direction=LT
}

%back (q: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %q = (s32[], f32[8,16]{1,0}) parameter(0)
  %k = s32[] get-tuple-element(%q), index=0
  %w = f32[8,16]{1,0} get-tuple-element(%q), index=1
  %again = f32[8,16]{1,0} fusion(%w), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/transpose(jvp(while))/body/checkpoint/rematted_computation/dot_general"}, backend_config={"estimated_cycles":"100"}
  %backward.1 = f32[8,16]{1,0} fusion(%again), kind=kOutput, calls=%inner, metadata={op_name="jit(step)/transpose(jvp(while))/body/checkpoint/dot_general"}, backend_config={"flag_configs":[],"estimated_cycles":"200"}
  ROOT %u = (s32[], f32[8,16]{1,0}) tuple(%k, %backward.1)
}

%always (q.1: (s32[], f32[8,16])) -> pred[] {
  %q.1 = (s32[], f32[8,16]{1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (data: f32[8,16]) -> f32[8,16] {
  %data = f32[8,16]{1,0} parameter(0), metadata={op_name="raw['latents']"}
  %zero = s32[] constant(0)
  %clip = f32[8,16]{1,0} fusion(%data), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/encode/clip_text/dot_general"}, backend_config={"estimated_cycles":"50"}
  %start = (s32[], f32[8,16]{1,0}) tuple(%zero, %clip)
  %loop = (s32[], f32[8,16]{1,0}) while(%start), condition=%condition, body=%body
  %carried = f32[8,16]{1,0} get-tuple-element(%loop), index=1
  %start.2 = (s32[], f32[8,16]{1,0}) tuple(%zero, %carried)
  %loop.2 = (s32[], f32[8,16]{1,0}) while(%start.2), condition=%always, body=%back, backend_config={"known_trip_count":{"n":"24"}}
  %result = f32[8,16]{1,0} get-tuple-element(%loop.2), index=1
  %loop.3 = (s32[], f32[8,16]{1,0}) while(%start.2), condition=%always, body=%back
  %reduced = f32[8,16]{1,0} all-reduce(%result), replica_groups=[2,4]<=[8], to_apply=%summed
  %adam = f32[8,16]{1,0} fusion(%reduced), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/optimizer/add"}, backend_config={"estimated_cycles":"70"}
  %unknown = f32[8,16]{1,0} copy(%adam)
  ROOT %ema = f32[8,16]{1,0} fusion(%unknown), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/ema/sub"}, backend_config={"estimated_cycles":"30"}
}
"""  # noqa: E501
