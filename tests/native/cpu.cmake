# Tests of the CPU scan: each runs once for every set of instructions that the machine has.
find_package(Threads REQUIRED)

foreach(name functions_test scan_test)
  add_executable(${name} ${name}.cc)
  target_link_libraries(${name} PRIVATE mambapro_core mambapro_flags Threads::Threads)
  foreach(set avx512 avx2 plain)
    add_test(NAME ${name}_${set} COMMAND ${name})
    set_tests_properties(${name}_${set} PROPERTIES ENVIRONMENT "MAMBAPRO_SIMD=${set}" LABELS cpu)
  endforeach()
endforeach()
