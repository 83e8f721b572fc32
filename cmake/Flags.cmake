# What every target of ours is compiled with: the interface library mambapro_flags.

set(MAMBAPRO_SANITIZE "" CACHE STRING "Sanitizers of all targets, for example address,undefined")

set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(mambapro_flags INTERFACE)
target_compile_features(mambapro_flags INTERFACE cxx_std_17)
target_compile_options(
  mambapro_flags
  INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror>
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release,RelWithDebInfo>>:-O3>
    # The scan's vectors contract to fused multiply-adds; no function of ours reads errno or traps.
    $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=fast -fno-math-errno -fno-trapping-math>
)
if(MAMBAPRO_SANITIZE)
  # Without recovery, so that a finding fails the test that met it.
  set(flags -fsanitize=${MAMBAPRO_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(mambapro_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${flags}>)
  target_link_options(mambapro_flags INTERFACE -fsanitize=${MAMBAPRO_SANITIZE})
endif()

# A library that a runtime loads: libmambapro_<name>.so, which shows only what it exports by name.
function(mambapro_adapter name)
  add_library(mambapro_${name} MODULE ${ARGN})
  target_link_libraries(mambapro_${name} PRIVATE mambapro_core mambapro_flags)
  target_link_options(mambapro_${name} PRIVATE LINKER:--exclude-libs,ALL)
  install(TARGETS mambapro_${name} LIBRARY DESTINATION ${MAMBAPRO_INSTALL_LIBDIR})
endfunction()
